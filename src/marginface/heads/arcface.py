"""Deng et al., "ArcFace: Additive Angular Margin Loss", arXiv 1801.07698, 2018."""

from torch import Tensor

from marginface.classifier.losses import LossConfig
from marginface.heads._functional import EasyMargin, add_angle
from marginface.heads._head import MarginGradient, MarginHead
from marginface.heads._registry import register_head


@register_head("arcface")
class ArcFace(MarginHead):
    """Additive angle: f = cos(theta + margin).

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
        loss: LossConfig = "cross_entropy",
    ) -> None:
        super().__init__(embedding_size, num_classes, scale, margin_gradient, loss)
        self.margin, self.easy_margin = margin, easy_margin

    def curve(self, cosine: Tensor) -> Tensor:
        return add_angle(cosine, self.margin, self.easy_margin)
