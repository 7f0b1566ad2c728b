"""Jiao et al., "Dyn-arcFace: Dynamic Additive Angular Margin Loss", MTAP, 2021."""

import math

import torch
from torch import Tensor

from marginface.heads._batch import LabeledBatch
from marginface.heads._functional import add_angle
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head


@register_head("dynarcface")
class DynArcFace(Margin):
    """f = cos(theta + m_i): the margin grows with the angle phi to the nearest other center.

    m_i = relu(phi - k1) k2 + k3 + 0.03 k3 / (1 + |20 (phi - k1)|^1.1), as in the X2-Softmax code.
    Each step compares the batch's centers with all centers. That code breaks for label -1.
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        k1: float = 0.9,
        k2: float = 0.3,
        k3: float = 0.45,
        margin_gradient: MarginGradient = "straight_through",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.k1, self.k2, self.k3 = k1, k2, k3

    def curve(self, cosine: Tensor, nearest: float | Tensor = math.pi / 2) -> Tensor:
        return add_angle(cosine, self._margin(cosine, nearest))

    def curve_inputs(self, batch: LabeledBatch) -> dict[str, Tensor]:
        differentiates = torch.is_grad_enabled() and self.margin_gradient == "exact"
        with torch.set_grad_enabled(differentiates):
            nearest = batch.nearest_other_center()
            limit = 1 - 4 * torch.finfo(nearest.dtype).eps  # arccos has poles at +-1
            return {"nearest": nearest.clamp(-limit, limit).arccos()}

    def typical_curve_inputs(self, embedding_size: int, num_classes: int) -> dict[str, Tensor]:
        # The largest of C - 1 cosines that are N(0, 1/D).
        rarest = torch.tensor(1 - 1 / num_classes, dtype=torch.float64)
        return {"nearest": (torch.special.ndtri(rarest) / embedding_size**0.5).arccos()}

    def _margin(self, cosine: Tensor, nearest: float | Tensor) -> Tensor:
        beyond = torch.as_tensor(nearest, dtype=cosine.dtype) - self.k1
        bump = 0.03 * self.k3 / (1 + (20 * beyond).abs() ** 1.1)
        return beyond.clamp(min=0) * self.k2 + self.k3 + bump
