"""Binary cross-entropy: one decision for each class, against one learned threshold."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from marginface.classifier.losses.base import ClassificationLoss, softplus
from marginface.classifier.reduction import Reduction
from marginface.utils.arguments import Positive


class BinaryCrossEntropy(ClassificationLoss):
    """C independent decisions against one learned threshold: UCE of UniFace, and SphereFace2.

    Args:
        threshold: first value of the threshold b, in units of the logits (UniFace: ln(10 C)).
        positive_weight: factor on softplus(b - target).
        negative_weight: factor on each softplus(negative - b).
        factor: factor on all of it.
    """

    name = "bce"

    def __init__(
        self,
        threshold: float,
        positive_weight: Positive = 1.0,
        negative_weight: Positive = 1.0,
        factor: Positive = 1.0,
    ) -> None:
        super().__init__()
        self.first_threshold = threshold
        # What is learned is the way from there, so the start is exact in every precision.
        self.shift = nn.Parameter(torch.zeros(()))
        self.positive_weight, self.negative_weight = positive_weight, negative_weight
        self.factor = factor

    @property
    def threshold(self) -> float:
        """b as it is now; b / scale is a cosine to verify at."""
        return self.first_threshold + float(self.shift.detach())

    def forward(self, logits: Tensor, labels: Tensor, margin_free: Tensor) -> Tensor:
        columns = labels[:, None]
        threshold = self.learned_threshold(logits.dtype)
        positive = softplus(threshold - logits.gather(1, columns).squeeze(1))
        negatives = softplus(logits.scatter(1, columns, -math.inf) - threshold).sum(1)
        return self._weighted(positive, negatives)

    def learned_threshold(self, dtype: torch.dtype) -> Tensor:
        return self.first_threshold + self.shift.to(dtype)

    def reduction(
        self,
        margin_free: Tensor | None,
        with_margin: Tensor | None,
        *,
        dtype: torch.dtype,
        bounded: bool,
        across_ranks: bool,
    ) -> Reduction:
        return SoftplusSum(self.learned_threshold(dtype), across_ranks)

    def combine(
        self, target: Tensor, others: Tensor, margin_free: Tensor | None, reduction: Any
    ) -> Tensor:
        threshold = self.learned_threshold(target.dtype)
        return self._weighted(softplus(threshold - target), others)

    def expected(self, target: Tensor, logits: Tensor, counts: Tensor) -> Tensor:
        threshold = torch.full_like(target, self.first_threshold)
        negatives = (counts * softplus(logits - threshold)).sum()
        return self._weighted(softplus(threshold - target), negatives)

    def _weighted(self, positive: Tensor, negatives: Tensor) -> Tensor:
        return self.factor * (self.positive_weight * positive + self.negative_weight * negatives)


def balanced_bias(odds: float, positive: float, negative: float) -> float:
    """The bias b that positives pull up as hard as negatives push down (SphereFace2).

    Solves odds sigmoid(-(positive + b)) = sigmoid(negative + b), a quadratic in exp(b).

    Args:
        odds: weight of the positive logit against that of all negatives together.
        positive: logit of the target.
        negative: logit of each negative.
    """
    root = math.hypot(1 - odds, 2 * math.sqrt(odds) * math.exp((positive - negative) / 2))
    if odds > 1:  # of the two forms of the root the one that adds what it can
        return math.log((odds - 1 + root) / 2) - positive
    return math.log(2 * odds / (1 - odds + root)) - negative


class SoftplusSum(Reduction):
    """value = sum_j softplus(z_j - threshold), for binary losses."""

    has_threshold = True

    def __init__(self, threshold: Tensor, across_ranks: bool = False) -> None:
        super().__init__(across_ranks)
        self.threshold = threshold.detach()

    def begin(self, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        super().begin(rows, dtype, device)
        self._sum = self.zeros()

    def update(self, logits: Tensor, scratch: Tensor) -> None:
        self.add(softplus(torch.sub(logits, self.threshold, out=scratch)).sum(0))

    def add(self, sums: Tensor) -> None:
        """Take in a chunk's (R,) sums."""
        self._sum += sums

    def finish(self) -> bool:
        self.value = self._add(self._sum).to(self.dtype)
        return False

    def weights(self, logits: Tensor, out: Tensor) -> Tensor:
        return torch.sub(logits, self.threshold, out=out).sigmoid_()
