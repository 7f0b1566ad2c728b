"""Plain softmax over inner products, the baseline of every margin paper."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.heads.base import MarginHead
from marginface.heads.registry import register_head


@register_head("softmax")
class Softmax(MarginHead):
    """Logits are scale W x: nothing normalised, no bias (the X2-Softmax code's baseline)."""

    def __init__(self, embedding_size: int, num_classes: int, *, scale: float = 1.0) -> None:
        super().__init__(embedding_size, num_classes, scale=scale, margin_gradient="exact")

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine

    def slope(self, cosine: Tensor) -> Tensor:
        return torch.ones_like(cosine)

    def logits(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            dtype = torch.promote_types(embeddings.dtype, torch.float32)
            return self.scale * F.linear(embeddings.to(dtype), self.weight.to(dtype))

    def expected_first_loss(self) -> float:
        """ln C and half the variance of the logits of embeddings with norm sqrt(D)."""
        return math.log(self.num_classes) + (0.01 * self.scale) ** 2 * self.embedding_size / 2
