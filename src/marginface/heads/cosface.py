"""Wang et al., "CosFace: Large Margin Cosine Loss", arXiv 1801.09414, 2018."""

from torch import Tensor

from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head


@register_head("cosface")
class CosFace(Margin):
    """Additive cosine: f = cos(theta) - margin.

    The default 0.4 is that of insightface, TFace and others; 0.35 is common too. The slope
    is 1, so both gradients agree.
    """

    falls_with_angle = True
    slope_is_one = True

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin: float = 0.4,
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.margin = margin

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin
