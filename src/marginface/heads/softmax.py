"""Plain softmax over inner products, the baseline of every margin paper."""

from typing import Any

from torch import Tensor

from marginface.classifier.losses import LossConfig
from marginface.heads._head import MarginGradient, MarginHead
from marginface.heads._registry import register_head


@register_head("softmax")
class Softmax(MarginHead):
    """Logits are scale W x: nothing normalized, no bias (the X2-Softmax code's baseline)."""

    normalizes = False
    slope_is_one = True
    has_fixed_scale = False

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 1.0,
        margin_gradient: MarginGradient = "exact",
        loss: LossConfig = "cross_entropy",
    ) -> None:
        super().__init__(embedding_size, num_classes, scale, margin_gradient, loss)

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine

    def target_logit(self, cosine: Tensor, **facts: Any) -> Tensor:
        return cosine  # inner products have no bounds to be clamped to

    def random_similarities(self) -> tuple[Tensor, Tensor]:
        # Centers are as long as 0.01 sqrt(D) to begin with, embeddings as sqrt(D).
        cosine, density = super().random_similarities()
        return cosine * 0.01 * self.embedding_size, density
