"""Zhao et al., "QAMFace: Quadratic Additive Angular Margin Loss", ICIP 2020."""

import math

from torch import Tensor

from marginface.classifier.losses import LossConfig
from marginface.heads._head import MarginGradient, MarginHead
from marginface.heads._registry import register_head


@register_head("qamface")
class QAMFace(MarginHead):
    """Quadratic in the angle: f = (2 pi - theta - margin)^2; others are (2 pi - theta)^2.

    Defaults are those of cavaface, which calls the paper arXiv 1907.12256; that is AirFace.
    """

    changes_negatives = True
    falls_with_angle = True

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 6.0,
        margin: float = 0.5,
        margin_gradient: MarginGradient = "exact",
        loss: LossConfig = "cross_entropy",
    ) -> None:
        super().__init__(embedding_size, num_classes, scale, margin_gradient, loss)
        self.margin = margin

    def curve(self, cosine: Tensor) -> Tensor:
        return (2 * math.pi - cosine.arccos() - self.margin) ** 2

    def negative_curve(self, cosine: Tensor, target: Tensor) -> Tensor:
        return (2 * math.pi - cosine.arccos()) ** 2
