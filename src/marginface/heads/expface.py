"""Zheng and Gong, "ExpFace: Exponential Angular Margin Loss", arXiv 2509.19753, 2025."""

import math

from torch import Tensor

from marginface.classifier.losses import LossConfig
from marginface.heads._head import MarginGradient, MarginHead
from marginface.heads._registry import register_head
from marginface.utils.arguments import Share


@register_head("expface")
class ExpFace(MarginHead):
    """Exponential in the angle: f = cos(pi (theta / pi)^exponent), no margin at 0 and pi.

    The formula is a review's of the paper, the exponent its m_e. Its value and the official code
    were not at hand: 0.7, a margin of 0.36 rad at 90 degrees, is ours. The slope is infinite at 0.
    """

    falls_with_angle = True

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 64.0,
        exponent: Share = 0.7,
        margin_gradient: MarginGradient = "straight_through",
        loss: LossConfig = "cross_entropy",
    ) -> None:
        super().__init__(embedding_size, num_classes, scale, margin_gradient, loss)
        self.exponent = exponent

    def curve(self, cosine: Tensor) -> Tensor:
        return (math.pi * (cosine.arccos() / math.pi) ** self.exponent).cos()
