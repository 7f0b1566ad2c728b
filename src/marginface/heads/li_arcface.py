"""Li et al., "AirFace: Lightweight and Efficient Model", arXiv 1907.12256, 2019."""

import math

from torch import Tensor

from marginface.classifier.negative_kind import Curve, NegativeKind
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head


@register_head("li_arcface")
class LiArcFace(Margin):
    """Linear in the angle: f = (pi - 2 (theta + margin)) / pi; others are (pi - 2 theta) / pi.

    Toolkits clamp cosines to 1 - 1e-7 first, which 16-bit floats round to 1; here slopes are taken
    away from the poles instead.
    """

    changes_negatives = True
    falls_with_angle = True

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin: float = 0.45,
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.margin = margin

    def curve(self, cosine: Tensor) -> Tensor:
        return 1 - 2 * (cosine.arccos() + self.margin) / math.pi

    def negative_curve(self, cosine: Tensor, target: Tensor) -> Tensor:
        return 1 - 2 * cosine.arccos() / math.pi

    def negative_kind(self, target: Tensor) -> NegativeKind:
        return NegativeKind(Curve.ANGLE)
