"""Plain softmax over inner products, the baseline of every margin paper."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.heads.base import MarginHead
from marginface.heads.registry import register_head


@register_head("softmax")
class Softmax(MarginHead):
    """Logits are W x: nothing normalised, no bias, no scale (the X2-Softmax code's baseline)."""

    def __init__(self, embedding_size: int, num_classes: int) -> None:
        super().__init__(embedding_size, num_classes, scale=1.0, margin_gradient="exact")

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine

    def slope(self, cosine: Tensor) -> Tensor:
        return torch.ones_like(cosine)

    def logits(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            dtype = torch.promote_types(embeddings.dtype, torch.float32)
            return F.linear(embeddings.to(dtype), self.weight.to(dtype))

    def expected_first_loss(self) -> float:
        """ln C: centres of length 0.01 sqrt(D) give logits near zero."""
        return math.log(self.num_classes)
