"""Softmax cross-entropy, of logits as they are and weighted by their distance from an optimum."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.classifier.losses.base import ClassificationLoss, softplus
from marginface.classifier.negative_kind import Curve, NegativeKind, Slope
from marginface.classifier.reduction import MASKED, Reduction


class CrossEntropy(ClassificationLoss):
    """Softmax cross-entropy by log-sum-exp; no probability floor, so a loss of 116 reads as 116."""

    name = "cross_entropy"

    def forward(self, logits: Tensor, labels: Tensor, margin_free: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")

    def reduction(
        self,
        margin_free: Tensor | None,
        with_margin: Tensor | None,
        *,
        dtype: torch.dtype,
        bounded: bool,
        across_ranks: bool,
    ) -> Reduction:
        return LogSumExp(bounded, across_ranks)

    def combine(
        self, target: Tensor, others: Tensor, margin_free: Tensor | None, reduction: Any
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

    name = "circle"
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

    def negative_kind(self) -> NegativeKind:
        return NegativeKind(Curve.CIRCLE, self.margin, slope=Slope.OF_CONSTANT_WEIGHT)

    def combine(
        self, target: Tensor, others: Tensor, margin_free: Tensor | None, reduction: Any
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


class LogSumExp(Reduction):
    """value = log sum_j exp(z_j), by an online softmax.

    Args:
        bounded: whether float32 holds the exponentials without a running maximum.
    """

    def __init__(self, bounded: bool = False, across_ranks: bool = False) -> None:
        super().__init__(across_ranks)
        self.bounded = bounded

    def begin(self, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        super().begin(rows, dtype, device)
        self._sum: Tensor | None = None
        self._top: Tensor | None = None  # largest logit so far; None: sums are of exp(z) as it is

    def update(self, logits: Tensor, scratch: Tensor) -> None:
        if self.bounded:
            self.add(torch.exp(logits, out=scratch).sum(0))
            return
        top = logits.amax(0)
        if self._top is not None:
            top = torch.maximum(self._top, top)
        self.add(torch.sub(logits, top, out=scratch).exp_().sum(0), top)

    def add(self, sums: Tensor, top: Tensor | None = None) -> None:
        """Take in a chunk's (R,) sums of exp(z - top), top at least as large as those before."""
        if self._sum is None:
            self._sum = sums.double()
        elif top is None or self._top is None:
            self._sum += sums
        else:
            self._sum = self._sum * (self._top.double() - top).exp() + sums
        self._top = top

    def add_tiles(self, sums: Tensor, tops: Tensor) -> None:
        """Take in (T, R) sums, each with a top of its own."""
        top = tops.amax(0)
        if self._top is not None:
            top = torch.maximum(self._top, top)
        self.add((sums * (tops - top).exp()).sum(0, dtype=torch.float64), top)

    def finish(self) -> bool:
        total = self.zeros() if self._sum is None else self._sum
        if self.bounded:
            self.value = self._add(total).log().to(self.dtype)
            return False
        here = self._top
        if here is None:
            here = torch.full((self.rows,), MASKED, dtype=self.dtype, device=self.device)
        top = self._max(here.clone())
        total = self._add(total * (here.double() - top).exp())
        self.value = (top + total.log()).to(self.dtype)
        return False

    def weights(self, logits: Tensor, out: Tensor) -> Tensor:
        return torch.sub(logits, self.value, out=out).exp_()
