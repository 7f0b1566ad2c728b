"""Sun et al., "Circle Loss: A Unified Perspective", arXiv 2002.10857, 2020."""

from typing import Any, Literal

from torch import Tensor

from marginface.classifier.losses import circle_weight
from marginface.classifier.negative_kind import Curve, NegativeKind, Slope
from marginface.heads._margin import Margin
from marginface.heads._registry import register_head

CircleGradient = Literal["detached_weights", "straight_through", "exact"]


@register_head("circle")
class Circle(Margin):
    """f = [1 + margin - c]_+ (c - 1 + margin); others are [c + margin]_+ (c - margin).

    The class-level form; scale is the paper's gamma. The bracket is a weight and a constant to
    autograd in the paper ("detached_weights"); "exact" differentiates it too.
    """

    changes_negatives = True
    falls_with_angle = True

    def __init__(
        self,
        *,
        scale: float = 256.0,
        margin: float = 0.25,
        margin_gradient: CircleGradient = "detached_weights",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.margin = margin

    def curve(self, cosine: Tensor) -> Tensor:
        return self._weight(1 - cosine) * (cosine - 1 + self.margin)

    def negative_curve(self, cosine: Tensor, target: Tensor) -> Tensor:
        return self._weight(cosine) * (cosine - self.margin)

    def negative_kind(self, target: Tensor) -> NegativeKind:
        exact = self.margin_gradient == "exact"
        slope = Slope.EXACT if exact else Slope.OF_CONSTANT_WEIGHT
        return NegativeKind(Curve.CIRCLE, self.margin, slope=slope)

    def slope(self, cosine: Tensor, **inputs: Any) -> Tensor:
        detached = self.margin_gradient == "detached_weights"
        return self._weight(1 - cosine) if detached else super().slope(cosine)

    def negative_slope(self, cosine: Tensor, target: Tensor) -> Tensor:
        detached = self.margin_gradient == "detached_weights"
        return self._weight(cosine) if detached else super().negative_slope(cosine, target)

    def _weight(self, distance: Tensor) -> Tensor:
        return circle_weight(distance, self.margin)
