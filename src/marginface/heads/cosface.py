"""CosFace: Wang et al., "Large Margin Cosine Loss for Deep Face Recognition", arXiv 1801.09414."""

import torch
from torch import Tensor

from marginface.heads.base import MarginGradient, MarginHead
from marginface.heads.registry import register_head


@register_head("cosface")
class CosFace(MarginHead):
    """Additive cosine: f = cos(theta) - margin, eq. 4 of the paper.

    The default 0.4 is insightface's; the paper used 0.35. The slope is 1, so both gradients agree.
    """

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 64.0,
        margin: float = 0.4,
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(embedding_size, num_classes, scale=scale, margin_gradient=margin_gradient)
        self.margin = margin

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine - self.margin

    def slope(self, cosine: Tensor) -> Tensor:
        return torch.ones_like(cosine)
