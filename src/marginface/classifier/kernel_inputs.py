"""What the GPU kernels are told about a batch and about its logits; needs no Triton."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from marginface.classifier.negative_kind import NegativeKind


@dataclass(frozen=True)
class Halves:
    """Numbers in float16, and what float16 leaves over where that is wanted too."""

    hi: Tensor  # (n, D)
    rest: Tensor | None = None  # (n, D)

    @property
    def split(self) -> bool:
        return self.rest is not None

    @property
    def lo(self) -> Tensor:
        """What is left over; for a kernel that does not read it, any tensor."""
        return self.hi if self.rest is None else self.rest

    def part(self, rows: slice, columns: slice = slice(None)) -> Halves:
        rest = None if self.rest is None else self.rest[rows, columns]
        return Halves(self.hi[rows, columns], rest)


@dataclass(frozen=True)
class Logits:
    """How cosines become logits, and what is made of them: what both products have to know."""

    scale: float
    kind: NegativeKind
    binary: bool
    row_lengths: bool  # whether the lengths of rows count
    center_lengths: bool
    above: float | None  # cosines that count as 0

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """Scale, the two parameters of the curve and `above`."""
        above = 0.0 if self.above is None else self.above
        return float(self.scale), float(self.kind.first), float(self.kind.second), float(above)


@dataclass(frozen=True)
class BatchRows:
    """The rows of a batch as the kernels want them."""

    vectors: Tensor  # (R, D) as they came
    halves: Halves  # (R, D) unit rows
    inverse: Tensor  # (R,) 1 / |vector|
    own: Tensor  # (R,) product with the own center, all processes added up
    own_slope: Tensor  # (R,) its derivative by the cosine
    position: Tensor  # (R,) of the own class among those compared with, -1: not here
