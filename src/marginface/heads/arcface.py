"""Deng et al., "ArcFace: Additive Angular Margin Loss", arXiv 1801.07698, 2018."""

from torch import Tensor

from marginface.heads._functional import EasyMargin, add_angle
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head


@register_head("arcface")
class ArcFace(Margin):
    """Additive angle: f = cos(theta + margin).

    Defaults are the paper's; gradient and easy_margin are those of insightface's current code.
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin: float = 0.5,
        easy_margin: EasyMargin = "none",
        margin_gradient: MarginGradient = "straight_through",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.margin, self.easy_margin = margin, easy_margin

    def curve(self, cosine: Tensor) -> Tensor:
        return add_angle(cosine, self.margin, self.easy_margin)
