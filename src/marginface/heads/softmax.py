"""Plain softmax over inner products, the baseline of every margin paper."""

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from marginface.heads.base import MarginGradient, MarginHead
from marginface.heads.registry import register_head
from marginface.losses import LossSpec


@register_head("softmax")
class Softmax(MarginHead):
    """Logits are scale W x: nothing normalised, no bias (the X2-Softmax code's baseline)."""

    slope_is_one = True

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 1.0,
        margin_gradient: MarginGradient = "exact",
        loss: LossSpec = "cross_entropy",
    ) -> None:
        super().__init__(embedding_size, num_classes, scale, margin_gradient, loss)

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine

    def target_logit(self, cosine: Tensor, **facts: Any) -> Tensor:
        return cosine  # inner products have no bounds to be clamped to

    def similarity(self, embeddings: Tensor) -> Tensor:
        return F.linear(embeddings, self.weight.to(embeddings.dtype))

    def expected_first_loss(self) -> float:
        """ln C and half the variance of the logits of embeddings with norm sqrt(D)."""
        return math.log(self.num_classes) + (0.01 * self.scale) ** 2 * self.embedding_size / 2
