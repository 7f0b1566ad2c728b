"""Wang et al., "NormFace: L2 Hypersphere Embedding", arXiv 1704.06369, 2017."""

from torch import Tensor

from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head


@register_head("normface")
class NormFace(Margin):
    """Cosine softmax without a margin: f = cos(theta).

    The scale is fixed as in the X2-Softmax code; the paper learns it.
    """

    falls_with_angle = True
    slope_is_one = True

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(scale, margin_gradient)

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine
