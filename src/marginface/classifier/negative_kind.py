"""What a head may do to the cosines of other classes, in a form that the GPU kernels know.

A head that describes its negative curve here runs in the kernels; one that says nothing runs in
plain torch, so a curve of one's own is never mistaken for another.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from torch import Tensor


class Curve(StrEnum):
    """g(c), by the names that the kernels have for it."""

    PLAIN = "plain"  # c
    RAISED = "raised"  # first x c + second where c > limit
    CURRICULAR = "curricular"  # c (rate + c) where c > limit
    CIRCLE = "circle"  # [c + first]_+ (c - first)
    POWER = "power"  # 2 ((c + 1) / 2)^first - 1 + second
    ANGLE = "angle"  # 1 - 2 arccos(c) / pi
    SQUARED_ANGLE = "squared_angle"  # (2 pi - arccos(c))^2


class Slope(StrEnum):
    """What the backward pass takes for dg/dc."""

    ONE = "one"
    EXACT = "exact"
    OF_CONSTANT_WEIGHT = "of_constant_weight"  # of CIRCLE: its bracket is a constant


@dataclass(frozen=True)
class NegativeKind:
    """A curve with its numbers.

    Args:
        curve: which one.
        first, second: its parameters.
        limits: (R,) cosine of each row above which others are changed.
        rate: () parameter that follows the batches.
        slope: what passes for its derivative.
    """

    curve: Curve
    first: float = 0.0
    second: float = 0.0
    limits: Tensor | None = None
    rate: Tensor | None = None
    slope: Slope = Slope.EXACT

    def with_slope(self, slope: Slope) -> "NegativeKind":
        return replace(self, slope=slope)

    @property
    def log2_largest_slope(self) -> int:
        """Below which power of two its derivative stays."""
        return 7 if self.curve in (Curve.ANGLE, Curve.SQUARED_ANGLE) else 4


PLAIN = NegativeKind(Curve.PLAIN)
