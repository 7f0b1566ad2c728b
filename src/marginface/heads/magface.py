"""Meng et al., "MagFace: A Universal Representation", arXiv 2103.06627, 2021."""

import warnings

import torch
from torch import Tensor

from marginface.classifier.losses import LossConfig
from marginface.heads._batch import LabeledBatch
from marginface.heads._functional import EasyMargin, add_angle
from marginface.heads._head import MarginGradient, MarginHead
from marginface.heads._registry import register_head
from marginface.utils.arguments import Positive
from marginface.utils.errors import InputError


@register_head("magface")
class MagFace(MarginHead):
    """f = cos(theta + m(a)), a = |x|: long embeddings get a large margin and a small penalty g(a).

    m rises from l_margin to u_margin over [l_a, u_a]; lambda_g mean(1/a + a/u_a^2) is added to the
    loss. As in the official code norms outside the range have no gradient.
    """

    needs_norm = True

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 64.0,
        l_margin: float = 0.45,
        u_margin: float = 0.8,
        l_a: Positive = 10.0,
        u_a: Positive = 110.0,
        lambda_g: float = 35.0,
        easy_margin: EasyMargin = "easy",
        margin_gradient: MarginGradient = "exact",
        loss: LossConfig = "cross_entropy",
    ) -> None:
        super().__init__(embedding_size, num_classes, scale, margin_gradient, loss)
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

    def curve_inputs(self, rows: LabeledBatch) -> dict[str, Tensor]:
        return {"norm": rows.norms()}

    def auxiliary_loss(self, rows: LabeledBatch) -> Tensor:
        a = rows.norms().clamp(self.l_a, self.u_a)
        return self.lambda_g * (1 / a + a / self.u_a**2).mean()
