"""Zheng and Gong, "ExpFace: Exponential Angular Margin Loss", arXiv 2509.19753, 2025."""

import math

from torch import Tensor

from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head
from marginface.utils.arguments import Share


@register_head("expface")
class ExpFace(Margin):
    """Exponential in the angle: f = cos(pi (theta / pi)^exponent), no margin at 0 and pi.

    The formula is a review's of the paper, the exponent its m_e. Its value and the official code
    were not found: 0.7, a margin of 0.36 rad at 90 degrees, is ours. The slope is infinite at 0.
    """

    falls_with_angle = True

    def __init__(
        self,
        *,
        scale: float = 64.0,
        exponent: Share = 0.7,
        margin_gradient: MarginGradient = "straight_through",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.exponent = exponent

    def curve(self, cosine: Tensor) -> Tensor:
        return (math.pi * (cosine.arccos() / math.pi) ** self.exponent).cos()
