"""Wang et al., "CosFace: Large Margin Cosine Loss", arXiv 1801.09414, 2018."""

from torch import Tensor

from marginface.classifier.losses import LossConfig
from marginface.heads._head import MarginGradient, MarginHead
from marginface.heads._registry import register_head


@register_head("cosface")
class CosFace(MarginHead):
    """Additive cosine: f = cos(theta) - margin.

    The default 0.4 is that of insightface, TFace and others; 0.35 is common too. The slope
    is 1, so both gradients agree.
    """

    falls_with_angle = True
    slope_is_one = True

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 64.0,
        margin: float = 0.4,
        margin_gradient: MarginGradient = "exact",
        loss: LossConfig = "cross_entropy",
    ) -> None:
        super().__init__(embedding_size, num_classes, scale, margin_gradient, loss)
        self.margin = margin

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin
