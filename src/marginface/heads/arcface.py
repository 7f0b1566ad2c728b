"""ArcFace: Deng et al., "Additive Angular Margin Loss for Deep Face Recognition", 1801.07698."""

from torch import Tensor

from marginface.heads.angular import EasyMargin, add_angle, add_angle_slope, check_easy_margin
from marginface.heads.base import MarginGradient, MarginHead
from marginface.heads.registry import register_head


@register_head("arcface")
class ArcFace(MarginHead):
    """Additive angle: f = cos(theta + margin), eq. 3 of the paper.

    Defaults are the paper's; gradient and easy_margin are those of insightface's current code.
    """

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 64.0,
        margin: float = 0.5,
        easy_margin: EasyMargin = "none",
        margin_gradient: MarginGradient = "straight_through",
    ) -> None:
        super().__init__(embedding_size, num_classes, scale=scale, margin_gradient=margin_gradient)
        check_easy_margin(easy_margin)
        self.margin, self.easy_margin = margin, easy_margin

    def curve(self, cosine: Tensor) -> Tensor:
        return add_angle(cosine, self.margin, self.easy_margin)

    def slope(self, cosine: Tensor) -> Tensor:
        return add_angle_slope(cosine, self.margin, self.easy_margin)
