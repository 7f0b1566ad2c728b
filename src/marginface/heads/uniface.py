"""Zhou et al., "UniFace: Unified Cross-Entropy Loss for Deep Face Recognition", ICCV 2023."""

from torch import Tensor

from marginface.heads._head import MarginGradient, MarginHead
from marginface.heads._registry import register_head
from marginface.utils.arguments import Positive


@register_head("uniface")
class UniFace(MarginHead):
    """f = cos(theta) - margin under one learned threshold b for all pairs (UCE), not softmax.

    Loss: softplus(b - s f) + negative_weight x sum softplus(s cos_j - b), b from ln(10 C). b / s is
    a cosine to verify at. The official code also clamps exponents to +-s; here nothing overflows.
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
        negative_weight: Positive = 1.0,
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        loss = {"name": "bce", "negative_weight": negative_weight}
        super().__init__(embedding_size, num_classes, scale, margin_gradient, loss)
        self.margin = margin

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin
