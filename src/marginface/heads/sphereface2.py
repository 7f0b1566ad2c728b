"""Wen et al., "SphereFace2: Binary Classification is All You Need", arXiv 2108.01513, 2022."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from marginface.classifier.losses import LossConfig, balanced_bias
from marginface.classifier.negative_kind import Curve, NegativeKind
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head
from marginface.utils.arguments import AtLeastOne, Positive


@register_head("sphereface2")
class SphereFace2(Margin):
    """f = g(cos) - margin, others g(cos) + margin, g(c) = 2 ((c + 1) / 2)^t - 1, C binary losses.

    Loss: loss_weight / scale x (a softplus(-(s f + b)) + (1 - a) sum softplus(s g_j + b)) with
    a = positive_weight and a learned, at first balanced b. Defaults and gradient: OpenSphere's.
    """

    has_own_loss = True
    changes_negatives = True
    falls_with_angle = True

    def __init__(
        self,
        *,
        scale: float = 40.0,
        margin: float = 0.4,
        t: AtLeastOne = 3.0,
        positive_weight: Annotated[float, Field(gt=0, lt=1)] = 0.7,
        loss_weight: Positive = 50.0,
        margin_gradient: MarginGradient = "straight_through",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.margin, self.t = margin, t
        self.positive_weight, self.loss_weight = positive_weight, loss_weight

    def default_loss(self, num_classes: int) -> LossConfig:
        start = 2 * 0.5**self.t - 1  # g of an angle of 90 degrees
        odds = self.positive_weight / ((1 - self.positive_weight) * (num_classes - 1))
        first = (self.scale * (start + side * self.margin) for side in (-1, 1))
        return {
            "name": "bce",
            "threshold": -balanced_bias(odds, *first),
            "positive_weight": self.positive_weight,
            "negative_weight": 1 - self.positive_weight,
            "factor": self.loss_weight / self.scale,
        }

    def curve(self, cosine: Tensor) -> Tensor:
        return self._g(cosine) - self.margin

    def negative_curve(self, cosine: Tensor, target: Tensor) -> Tensor:
        return self._g(cosine) + self.margin

    def negative_kind(self, target: Tensor) -> NegativeKind:
        return NegativeKind(Curve.POWER, self.t, self.margin)

    def _g(self, cosine: Tensor) -> Tensor:
        return 2 * ((cosine + 1) / 2) ** self.t - 1
