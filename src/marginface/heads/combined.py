"""Deng et al., "ArcFace: Additive Angular Margin Loss", arXiv 1801.07698, 2018."""

from torch import Tensor

from marginface.heads._functional import EasyMargin, add_angle
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head
from marginface.utils.errors import InputError


@register_head("combined")
class Combined(Margin):
    """All three margins at once: f = cos(m1 theta + m2) - m3.

    Defaults are mxnet insightface's "combined" (1, 0.3, 0.2). insightface's current
    CombinedMarginLoss ignores m1 and m2 when m3 > 0; this one does not.
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        m1: float = 1.0,
        m2: float = 0.3,
        m3: float = 0.2,
        easy_margin: EasyMargin = "none",
        margin_gradient: MarginGradient = "straight_through",
    ) -> None:
        super().__init__(scale, margin_gradient)
        if m1 != 1 and easy_margin != "none":
            raise InputError(
                f"combined: easy_margin={easy_margin!r} is defined for m1=1 only, got m1={m1}; "
                "use easy_margin=none"
            )
        self.m1, self.m2, self.m3, self.easy_margin = m1, m2, m3, easy_margin

    def curve(self, cosine: Tensor) -> Tensor:
        if self.m1 == 1:
            return add_angle(cosine, self.m2, self.easy_margin) - self.m3
        return (self.m1 * cosine.arccos() + self.m2).cos() - self.m3
