"""Wang et al., "NormFace: L2 Hypersphere Embedding", arXiv 1704.06369, 2017."""

from torch import Tensor

from marginface.classifier.losses import LossConfig
from marginface.heads._head import MarginGradient, MarginHead
from marginface.heads._registry import register_head


@register_head("normface")
class NormFace(MarginHead):
    """Cosine softmax without a margin: f = cos(theta).

    The scale is fixed as in the X2-Softmax code; the paper learns it.
    """

    falls_with_angle = True
    slope_is_one = True

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 64.0,
        margin_gradient: MarginGradient = "exact",
        loss: LossConfig = "cross_entropy",
    ) -> None:
        super().__init__(embedding_size, num_classes, scale, margin_gradient, loss)

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine
