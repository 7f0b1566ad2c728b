"""Q-Margin: "Alpha Divergence Losses", arXiv 2511.13621, 2025."""

from torch import Tensor

from marginface.classifier.losses import Alpha, LossConfig
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head
from marginface.utils.errors import InputError


@register_head("q_margin")
class QMargin(Margin):
    """f = cos(theta) - margin as a prior q = exp(-s margin) of an alpha-divergence, not softmax.

    Posteriors have exact zeros. alpha towards 1 is CosFace; a larger alpha wants a smaller scale.
    Written from a summary of the paper (alpha 1.25, margin 0.2, scale 32 to 35 for 2 M identities,
    alpha 1.5 to 1.75 with scale 5 to 10 for 6,000); no official code was found.
    """

    has_own_loss = True
    falls_with_angle = True
    slope_is_one = True

    def __init__(
        self,
        *,
        scale: float = 32.0,
        margin: float = 0.2,
        alpha: Alpha = 1.25,
        margin_gradient: MarginGradient = "straight_through",
    ) -> None:
        if (alpha - 1) * scale * margin > 80:
            raise InputError(
                f"q_margin: exp((alpha - 1) scale margin) overflows for {alpha}, {scale}, {margin}"
            )
        super().__init__(scale, margin_gradient)
        self.margin, self.alpha = margin, alpha

    def default_loss(self, num_classes: int) -> LossConfig:
        return {"name": "alpha_divergence", "alpha": self.alpha, "prior": "exponential"}

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin
