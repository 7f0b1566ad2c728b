"""Zhao et al., "QAMFace: Quadratic Additive Angular Margin Loss", ICIP 2020."""

import math

from torch import Tensor

from marginface.classifier.negative_kind import Curve, NegativeKind
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head


@register_head("qamface")
class QAMFace(Margin):
    """Quadratic in the angle: f = (2 pi - theta - margin)^2; others are (2 pi - theta)^2.

    Defaults are those of cavaface, which calls the paper arXiv 1907.12256; that is AirFace.
    """

    changes_negatives = True
    falls_with_angle = True

    def __init__(
        self,
        *,
        scale: float = 6.0,
        margin: float = 0.5,
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.margin = margin

    def curve(self, cosine: Tensor) -> Tensor:
        return (2 * math.pi - cosine.arccos() - self.margin) ** 2

    def negative_curve(self, cosine: Tensor, target: Tensor) -> Tensor:
        return (2 * math.pi - cosine.arccos()) ** 2

    def negative_kind(self, target: Tensor) -> NegativeKind:
        return NegativeKind(Curve.SQUARED_ANGLE)
