"""Which tile each kernel computes at once: a fixed table, so that results depend on no timing."""

from dataclasses import dataclass

from marginface.classifier.negative_kind import Curve

ROWS_PER_PROGRAM = 4  # of the kernels that go over whole rows
_WAVE = 132 * 32  # classes: whole waves of programs on the 132 multiprocessors of an H100


@dataclass(frozen=True)
class Tile:
    """Rows and classes of a program, and how many columns it multiplies at a time."""

    rows: int
    classes: int
    columns: int
    warps: int
    stages: int


_INTERPRETED = Tile(16, 32, 16, 4, 2)
# The fastest of those measured on an H200 (benchmarks/results), where the compiler spills nothing.
_FLOAT16 = Tile(128, 128, 64, 4, 3)
_FLOAT16_LONG = Tile(128, 128, 64, 8, 3)  # where an epilogue needs more registers
_SPLIT = Tile(128, 128, 32, 8, 3)
_LONGEST = Tile(64, 128, 64, 8, 3)  # a power in it, and softplus
_LONGEST_SPLIT = Tile(64, 128, 32, 8, 3)


def tile_of(*, split: bool, curve: Curve, binary: bool, interpreted: bool) -> Tile:
    """The tile of the products.

    Args:
        split: whether operands come in two parts.
        curve: what is done to the cosines.
        binary: whether the loss is one of softplus.
        interpreted: whether Triton's interpreter runs the kernels, on a CPU.
    """
    if interpreted:
        return _INTERPRETED
    if curve == Curve.POWER and binary:
        return _LONGEST_SPLIT if split else _LONGEST
    if split:
        return _SPLIT
    return _FLOAT16 if curve == Curve.PLAIN and not binary else _FLOAT16_LONG


def classes_of_chunk(bytes_of_class: int, budget: int, rows: int) -> int:
    """How many classes a chunk has: as many as the budget holds, in whole waves if it can be."""
    number = budget // bytes_of_class
    number = min(number, (2**31 - 1) // max(rows, 1) - 64)  # addresses within a chunk have 32 bits
    step = _WAVE if number >= _WAVE else 64
    return max(number // step * step, 64)
