"""Zhou et al., "UniFace: Unified Cross-Entropy Loss for Deep Face Recognition", ICCV 2023."""

from torch import Tensor

from marginface.classifier.losses import LossConfig
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head
from marginface.utils.arguments import Positive


@register_head("uniface")
class UniFace(Margin):
    """f = cos(theta) - margin under one learned threshold b for all pairs (UCE), not softmax.

    Loss: softplus(b - s f) + negative_weight x sum softplus(s cos_j - b), b from ln(10 C). b / s is
    a cosine to verify at. The official code also clamps exponents to +-s; here nothing overflows.
    """

    has_own_loss = True
    falls_with_angle = True
    slope_is_one = True

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin: float = 0.4,
        negative_weight: Positive = 1.0,
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.margin, self.negative_weight = margin, negative_weight

    def default_loss(self, num_classes: int) -> LossConfig:
        return {"name": "bce", "negative_weight": self.negative_weight}

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin
