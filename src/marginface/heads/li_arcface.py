"""Li et al., "AirFace: Lightweight and Efficient Model", arXiv 1907.12256, 2019."""

import math

from torch import Tensor

from marginface.classifier.losses import LossConfig
from marginface.heads._head import MarginGradient, MarginHead
from marginface.heads._registry import register_head


@register_head("li_arcface")
class LiArcFace(MarginHead):
    """Linear in the angle: f = (pi - 2 (theta + margin)) / pi; others are (pi - 2 theta) / pi.

    Toolkits clamp cosines to 1 - 1e-7 first, which 16-bit floats round to 1; here slopes are taken
    away from the poles instead.
    """

    changes_negatives = True
    falls_with_angle = True

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 64.0,
        margin: float = 0.45,
        margin_gradient: MarginGradient = "exact",
        loss: LossConfig = "cross_entropy",
    ) -> None:
        super().__init__(embedding_size, num_classes, scale, margin_gradient, loss)
        self.margin = margin

    def curve(self, cosine: Tensor) -> Tensor:
        return 1 - 2 * (cosine.arccos() + self.margin) / math.pi

    def negative_curve(self, cosine: Tensor, target: Tensor) -> Tensor:
        return 1 - 2 * cosine.arccos() / math.pi
