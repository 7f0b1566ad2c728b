"""Deng et al., "Sub-center ArcFace: Boosting by Large-Scale Noisy Web Faces", ECCV 2020."""

import torch
from torch import Tensor

from marginface.heads._functional import EasyMargin, add_angle
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head
from marginface.utils.arguments import WholeNumber


@register_head("subcenter_arcface")
class SubcenterArcFace(Margin):
    """f = cos(theta + margin), theta to the nearest of K centers of a class.

    `weight` is (C K, D), the K rows of a class one after the other. `heads.analysis.subcenters`
    finds dominant centers and the images far from them, as drop.py of the official code (mxnet).
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        margin: float = 0.5,
        sub_centers: WholeNumber = 3,
        easy_margin: EasyMargin = "none",
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.margin, self.centers_per_class = margin, sub_centers
        self.easy_margin = easy_margin

    def curve(self, cosine: Tensor) -> Tensor:
        return add_angle(cosine, self.margin, self.easy_margin)

    def cosine_log_density(self, deviations: Tensor) -> Tensor:
        # Of the largest of K.
        others = torch.special.log_ndtr(deviations) * (self.centers_per_class - 1)
        return super().cosine_log_density(deviations) + others
