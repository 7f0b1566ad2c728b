"""Meng et al., "MagFace: A Universal Representation", arXiv 2103.06627, 2021."""

import warnings

import torch
from torch import Tensor

from marginface.heads._batch import LabeledBatch
from marginface.heads._functional import EasyMargin, add_angle
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head
from marginface.utils.arguments import Positive
from marginface.utils.errors import InputError


@register_head("magface")
class MagFace(Margin):
    """f = cos(theta + m(a)), a = |x|: long embeddings get a large margin and a small penalty g(a).

    m rises from l_margin to u_margin over [l_a, u_a]; lambda_g mean(1/a + a/u_a^2) is added to the
    loss. As in the official code norms outside the range have no gradient.
    """

    needs_norm = True

    def __init__(
        self,
        *,
        scale: float = 64.0,
        l_margin: float = 0.45,
        u_margin: float = 0.8,
        l_a: Positive = 10.0,
        u_a: Positive = 110.0,
        lambda_g: float = 35.0,
        easy_margin: EasyMargin = "easy",
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(scale, margin_gradient)
        if not l_a < u_a:
            raise InputError(f"magface: l_a must be below u_a, got {l_a} and {u_a}")
        if margin_gradient != "exact":
            warnings.warn("magface needs margin_gradient=exact, or norms run to u_a", stacklevel=2)
        self.l_margin, self.u_margin, self.l_a, self.u_a = l_margin, u_margin, l_a, u_a
        self.lambda_g, self.easy_margin = lambda_g, easy_margin

    def curve(self, cosine: Tensor, norm: float | Tensor = 0.0) -> Tensor:
        a = torch.as_tensor(norm, dtype=cosine.dtype).clamp(self.l_a, self.u_a)
        rise = (self.u_margin - self.l_margin) / (self.u_a - self.l_a)
        return add_angle(cosine, self.l_margin + rise * (a - self.l_a), self.easy_margin)

    def curve_inputs(self, batch: LabeledBatch) -> dict[str, Tensor]:
        return {"norm": batch.norms()}

    def auxiliary_loss(self, batch: LabeledBatch) -> Tensor:
        a = batch.norms().clamp(self.l_a, self.u_a)
        return self.lambda_g * (1 / a + a / self.u_a**2).mean()
