"""Softmax cross-entropy, of logits as they are and weighted by their distance from an optimum."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from marginface.classifier.reductions import softplus
from marginface.losses.base import LossOverLogits


class CrossEntropy(LossOverLogits):
    """Softmax cross-entropy by log-sum-exp; no probability floor, so a loss of 116 reads as 116."""

    def forward(self, logits: Tensor, labels: Tensor, margin_free: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")

    def combine(
        self, target: Tensor, others: Tensor, margin_free: Tensor, reduction: Any
    ) -> Tensor:
        return softplus(others - target)

    def expected(self, target: Tensor, logits: Tensor, counts: Tensor) -> Tensor:
        return softplus((logits + counts.log()).logsumexp(0) - target)


class Circle(CrossEntropy):
    """Cross-entropy of logits weighted by their distance from an optimum (2002.10857).

    Args:
        scale: gamma, the scale of the logits that come in and of the weighted ones.
        margin: m; the optima are 1 + m (target) and -m, the decision margins 1 - m and m.
    """

    needs_plain_negatives = True
    needs_fixed_scale = True
    changes_negatives = True

    def __init__(self, scale: float, margin: float = 0.25) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin

    def forward(self, logits: Tensor, labels: Tensor, margin_free: Tensor) -> Tensor:
        cosine, columns = logits / self.scale, labels[:, None]
        weighted = circle_weight(cosine, self.margin).detach() * (cosine - self.margin)
        target = self._target(cosine.gather(1, columns))
        return super().forward(
            self.scale * weighted.scatter(1, columns, target), labels, margin_free
        )

    def negative_curve(self, cosine: Tensor) -> Tensor:
        return circle_weight(cosine, self.margin) * (cosine - self.margin)

    def negative_slope(self, cosine: Tensor) -> Tensor:  # the weight is a constant
        return circle_weight(cosine, self.margin)

    def combine(
        self, target: Tensor, others: Tensor, margin_free: Tensor, reduction: Any
    ) -> Tensor:
        weighted = self.scale * self._target(target / self.scale)
        return super().combine(weighted, others, margin_free, reduction)

    def _target(self, cosine: Tensor) -> Tensor:
        weight = circle_weight(1 - cosine, self.margin).detach()
        return weight * (cosine - 1 + self.margin)

    def expected(self, target: Tensor, logits: Tensor, counts: Tensor) -> Tensor:
        cosine, at = logits / self.scale, target / self.scale
        positive, negatives = self._target(at), self.negative_curve(cosine)
        return super().expected(self.scale * positive, self.scale * negatives, counts)


def circle_weight(distance: Tensor, margin: float) -> Tensor:
    """[distance + m]_+: distance is the cosine of a negative, 1 - cosine of the target."""
    return (distance + margin).clamp(min=0)
