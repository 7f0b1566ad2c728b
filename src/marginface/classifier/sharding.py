"""Shards: which classes a process holds, and how their centers are drawn."""

from dataclasses import dataclass

import torch
from torch import Tensor

from marginface.utils.errors import InputError


@dataclass(frozen=True)
class Shard:
    """Classes start to stop - 1 of num_classes, those of process `rank` of `world`."""

    rank: int
    world: int
    num_classes: int

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise InputError(f"rank {self.rank} is not one of {self.world} processes")

    @property
    def start(self) -> int:
        return min(self.rank * self._size, self.num_classes)

    @property
    def stop(self) -> int:
        return min(self.start + self._size, self.num_classes)

    @property
    def _size(self) -> int:
        # As torch.chunk and DTensor divide, so that their checkpoints need no translation.
        return -(-self.num_classes // self.world)


def init_centers(
    rows: int, width: int, std: float, first: int = 0, stop: int | None = None
) -> Tensor:
    """Rows first to stop - 1 of a (rows, width) matrix of N(0, std^2).

    Drawn from torch's generator, which moves on as for the whole matrix: every shard is a part of
    what one process would have drawn, without ever being in memory with the rest.
    """
    stop = rows if stop is None else stop
    if (first, stop) == (0, rows):
        return torch.empty(rows, width).normal_(0, std)
    kept = torch.empty(stop - first, width)
    # torch draws blocks of 16 numbers, so parts of a multiple of 16 rows are parts of the whole;
    # the last part takes the rest, whose end is drawn differently.
    part, a = 1 << 16, 0
    while a < rows:
        b = a + part if rows - a >= 2 * part else rows
        drawn = torch.empty(b - a, width).normal_(0, std)
        low, high = max(a, first), min(b, stop)
        if low < high:
            kept[low - first : high - first] = drawn[low - a : high - a]
        a = b
    return kept
