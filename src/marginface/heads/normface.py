"""NormFace: Wang et al., "L2 Hypersphere Embedding for Face Verification", arXiv 1704.06369."""

import torch
from torch import Tensor

from marginface.heads.base import MarginGradient, MarginHead
from marginface.heads.registry import register_head


@register_head("normface")
class NormFace(MarginHead):
    """Cosine softmax without a margin: f = cos(theta). Scale as in the X2-Softmax code."""

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 64.0,
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(embedding_size, num_classes, scale=scale, margin_gradient=margin_gradient)

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine

    def slope(self, cosine: Tensor) -> Tensor:
        return torch.ones_like(cosine)
