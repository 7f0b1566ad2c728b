"""Kim et al., "AdaFace: Quality Adaptive Margin", arXiv 2204.00964, 2022."""

import math

import torch
from torch import Tensor

from marginface.heads._batch import LabeledBatch
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head
from marginface.utils.arguments import Share


@register_head("adaface")
class AdaFace(Margin):
    """f = cos(theta - margin z) - (margin + margin z), z in [-1, 1] from the norm of the embedding.

    z = clip(h (|x| - mean) / std). t_alpha, the weight of a new batch in both, is 1.0 in the
    official class, 0.01 in its scripts. There cosines beyond 0.999 have no gradient; here they do.
    """

    needs_norm = True
    batch_mean: Tensor
    batch_std: Tensor

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin: float = 0.4,
        h: float = 0.333,
        t_alpha: Share = 0.01,
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.margin, self.h, self.t_alpha = margin, h, t_alpha
        self.register_buffer("batch_mean", torch.tensor(20.0))
        self.register_buffer("batch_std", torch.tensor(100.0))

    def curve(self, cosine: Tensor, norm: float | Tensor | None = None) -> Tensor:
        z = torch.zeros((), dtype=cosine.dtype)
        if norm is not None:
            norm = torch.as_tensor(norm, dtype=cosine.dtype).detach().clamp(0.001, 100)
            z = (self.h * (norm - self.batch_mean) / (self.batch_std + 1e-3)).clamp(-1, 1)
        angle = (cosine.arccos() - self.margin * z).clamp(1e-3, math.pi - 1e-3)
        return angle.cos() - (self.margin + self.margin * z)

    def curve_inputs(self, batch: LabeledBatch) -> dict[str, Tensor]:
        norms = batch.norms().detach()
        self.observe(norms.clamp(0.001, 100), batch)
        return {"norm": norms}

    def advance(self, observed: Tensor) -> None:
        self.batch_mean.lerp_(observed.mean().to(self.batch_mean.dtype), self.t_alpha)
        if len(observed) > 1:  # one image has no spread
            self.batch_std.lerp_(observed.std().to(self.batch_std.dtype), self.t_alpha)
