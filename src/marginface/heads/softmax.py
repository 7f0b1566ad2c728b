"""Plain softmax over inner products, the baseline of every margin paper."""

from typing import Any

from torch import Tensor

from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head


@register_head("softmax")
class Softmax(Margin):
    """Logits are scale W x: nothing normalized, no bias (the X2-Softmax code's baseline)."""

    normalizes = False
    slope_is_one = True
    has_fixed_scale = False

    def __init__(
        self,
        *,
        scale: float = 1.0,
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(scale, margin_gradient)

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine

    def target_logit(self, cosine: Tensor, **inputs: Any) -> Tensor:
        return cosine  # inner products have no bounds to be clamped to

    def random_similarities(self, embedding_size: int) -> tuple[Tensor, Tensor]:
        # Centers are as long as 0.01 sqrt(D) to begin with, embeddings as sqrt(D).
        cosine, density = super().random_similarities(embedding_size)
        return cosine * 0.01 * embedding_size, density
