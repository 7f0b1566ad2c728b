"""Deng et al., "Sub-center ArcFace: Boosting by Large-Scale Noisy Web Faces", ECCV 2020."""

import torch
from torch import Tensor

from marginface.classifier.losses import LossConfig
from marginface.heads._functional import EasyMargin, add_angle
from marginface.heads._head import MarginGradient, MarginHead
from marginface.heads._registry import register_head
from marginface.utils.arguments import WholeNumber


@register_head("subcenter_arcface")
class SubcenterArcFace(MarginHead):
    """f = cos(theta + margin), theta to the nearest of K centers of a class.

    `weight` is (C K, D), the K rows of a class one after the other. `subcenter_report` finds the
    dominant centers and the images far from them; the official code (mxnet) does so in drop.py.
    """

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 64.0,
        margin: float = 0.5,
        sub_centers: WholeNumber = 3,
        easy_margin: EasyMargin = "none",
        margin_gradient: MarginGradient = "exact",
        loss: LossConfig = "cross_entropy",
    ) -> None:
        super().__init__(
            embedding_size, num_classes, scale, margin_gradient, loss, centers_per_class=sub_centers
        )
        self.margin, self.sub_centers = margin, sub_centers
        self.easy_margin = easy_margin

    def curve(self, cosine: Tensor) -> Tensor:
        return add_angle(cosine, self.margin, self.easy_margin)

    def cosine_log_density(self, deviations: Tensor) -> Tensor:
        # Of the largest of K.
        others = torch.special.log_ndtr(deviations) * (self.sub_centers - 1)
        return super().cosine_log_density(deviations) + others
