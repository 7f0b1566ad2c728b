"""Huang et al., "CurricularFace: Adaptive Curriculum Learning", arXiv 2004.00288, 2020."""

import torch
from torch import Tensor

from marginface.classifier.negative_kind import Curve, NegativeKind
from marginface.heads._batch import LabeledBatch
from marginface.heads._functional import EasyMargin, add_angle
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head
from marginface.utils.arguments import Share


@register_head("curricularface")
class CurricularFace(Margin):
    """f = cos(theta + margin); negatives above it become c (t + c).

    t follows the mean target cosine; t_alpha is the weight of the new batch, 0.01 in the official
    code, 0.1 in TFace. The official code's easy_margin branch cannot run.
    """

    changes_negatives = True
    falls_with_angle = True
    t: Tensor

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin: float = 0.5,
        t_alpha: Share = 0.01,
        easy_margin: EasyMargin = "monotone",
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.margin, self.t_alpha = margin, t_alpha
        self.easy_margin = easy_margin
        self.register_buffer("t", torch.zeros(()))

    def curve(self, cosine: Tensor) -> Tensor:
        return add_angle(cosine, self.margin, self.easy_margin)

    def negative_curve(self, cosine: Tensor, target: Tensor) -> Tensor:
        hard = cosine > add_angle(target, self.margin)
        return torch.where(hard, cosine * (self.t + cosine), cosine)

    def negative_kind(self, target: Tensor) -> NegativeKind:
        limits = add_angle(target, self.margin)
        return NegativeKind(Curve.CURRICULAR, limits=limits, rate=self.t.float().clone())

    def curve_inputs(self, batch: LabeledBatch) -> dict[str, Tensor]:
        self.observe(batch.target, batch)
        return {}

    def advance(self, observed: Tensor) -> None:
        self.t.lerp_(observed.mean().to(self.t.dtype), self.t_alpha)
