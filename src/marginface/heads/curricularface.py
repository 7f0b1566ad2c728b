"""Huang et al., "CurricularFace: Adaptive Curriculum Learning", arXiv 2004.00288, 2020."""

import torch
from torch import Tensor

from marginface.classifier.losses import LossConfig
from marginface.heads._batch import LabeledBatch
from marginface.heads._functional import EasyMargin, add_angle
from marginface.heads._head import MarginGradient, MarginHead
from marginface.heads._registry import register_head
from marginface.utils.arguments import Share


@register_head("curricularface")
class CurricularFace(MarginHead):
    """f = cos(theta + margin); negatives above it become c (t + c).

    t follows the mean target cosine; t_alpha is the weight of the new batch, 0.01 in the official
    code, 0.1 in TFace. The official code's easy_margin branch cannot run.
    """

    changes_negatives = True
    falls_with_angle = True
    t: Tensor

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 64.0,
        margin: float = 0.5,
        t_alpha: Share = 0.01,
        easy_margin: EasyMargin = "monotone",
        margin_gradient: MarginGradient = "exact",
        loss: LossConfig = "cross_entropy",
    ) -> None:
        super().__init__(embedding_size, num_classes, scale, margin_gradient, loss)
        self.margin, self.t_alpha = margin, t_alpha
        self.easy_margin = easy_margin
        self.register_buffer("t", torch.zeros(()))

    def curve(self, cosine: Tensor) -> Tensor:
        return add_angle(cosine, self.margin, self.easy_margin)

    def negative_curve(self, cosine: Tensor, target: Tensor) -> Tensor:
        hard = cosine > add_angle(target, self.margin)
        return torch.where(hard, cosine * (self.t + cosine), cosine)

    def curve_inputs(self, rows: LabeledBatch) -> dict[str, Tensor]:
        self.observe(rows.target)
        return {}

    def advance(self, observed: Tensor) -> None:
        self.t.lerp_(observed.mean().to(self.t.dtype), self.t_alpha)
