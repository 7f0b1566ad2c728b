"""Wang et al., "Mis-classified Vector Guided Softmax Loss", arXiv 1912.00833, 2020."""

from typing import Literal

import torch
from torch import Tensor

from marginface.classifier.negative_kind import Curve, NegativeKind
from marginface.heads._functional import EasyMargin, add_angle
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head


@register_head("mv_softmax")
class MVSoftmax(Margin):
    """f = cos(theta) - margin ("am") or cos(theta + margin) ("arc"); negatives above f are raised.

    They become (t + 1) c + t ("adaptive") or c + t ("fixed"). Defaults are the official code's.
    easy_margin is about the target only: negatives are compared with the f that has the margin.
    """

    changes_negatives = True

    def __init__(
        self,
        *,
        scale: float = 32.0,
        margin: float = 0.35,
        t: float = 0.2,
        variant: Literal["am", "arc"] = "am",
        weighting: Literal["adaptive", "fixed"] = "adaptive",
        easy_margin: EasyMargin = "easy",
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.margin, self.t, self.easy_margin = margin, t, easy_margin
        self.variant, self.weighting = variant, weighting

    def curve(self, cosine: Tensor) -> Tensor:
        if self.variant == "arc":
            return add_angle(cosine, self.margin, self.easy_margin)
        keeps = cosine > 0 if self.easy_margin == "easy" else torch.ones_like(cosine).bool()
        return torch.where(keeps, cosine - self.margin, cosine)

    def negative_curve(self, cosine: Tensor, target: Tensor) -> Tensor:
        factor = 1 + self.t if self.weighting == "adaptive" else 1.0
        return torch.where(cosine > self._limit(target), factor * cosine + self.t, cosine)

    def negative_kind(self, target: Tensor) -> NegativeKind:
        factor = 1 + self.t if self.weighting == "adaptive" else 1.0
        return NegativeKind(Curve.RAISED, factor, self.t, limits=self._limit(target))

    def _limit(self, target: Tensor) -> Tensor:
        """The target with its margin, whatever easy_margin does to it."""
        arc = self.variant == "arc"
        return add_angle(target, self.margin) if arc else target - self.margin
