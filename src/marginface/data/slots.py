"""Memory that workers decode batches into, again and again.

A DataLoader makes new shared memory for every batch and opens a connection to hand it over; at
10,000 images a second that takes a third of the time. Here every worker has a few slots for whole
batches and hands over the number of a slot.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from marginface.data.shelf import check_shared_memory

PREFETCH = 2  # batches a worker prepares ahead, torch's default


@dataclass(frozen=True)
class Filled:
    """Which slot holds a batch, and how many images of it."""

    worker: int
    slot: int
    count: int


class Slots:
    """Slots for the batches of all workers.

    A worker fills its slots in turn. While the consumer copies one batch, the worker has the
    PREFETCH next ones in work at most, so one slot more than that is never overwritten too early.

    Args:
        num_workers: processes that fill them.
        batch_size: most images in a batch.
        image_size: S.
    """

    def __init__(self, num_workers: int, batch_size: int, image_size: int) -> None:
        shape = (num_workers, PREFETCH + 1, batch_size, image_size, image_size, 3)
        check_shared_memory(
            num_workers * (PREFETCH + 1) * batch_size * image_size * image_size * 3,
            "data.num_workers",
        )
        self._images = torch.empty(shape, dtype=torch.uint8).share_memory_()
        self._worker = self._turn = -1

    def begin_worker(self, worker: int) -> None:
        """Make this process worker number `worker`: its batches go into its slots."""
        global _mine
        self._worker = worker
        _mine = self

    def next(self, count: int) -> Tensor:
        """(count, S, S, 3) to fill."""
        self._turn += 1
        return self._images[self._worker, self._turn % (PREFETCH + 1), :count]

    def filled(self, count: int) -> Filled:
        """What to send for the batch last filled, of which `count` images are used."""
        return Filled(self._worker, self._turn % (PREFETCH + 1), count)

    def take(self, filled: Filled, pin: bool) -> Tensor:
        """A copy of a batch, uint8 (B, 3, S, S); in page-locked memory when asked for."""
        images = self._images[filled.worker, filled.slot, : filled.count]
        copy = torch.empty(images.shape, dtype=torch.uint8, pin_memory=pin).copy_(images)
        return copy.permute(0, 3, 1, 2)


_mine: Slots | None = None  # of this process when it is a worker


def batch_memory(count: int, size: int) -> Tensor:
    """uint8 (count, size, size, 3) for a batch: in a worker its next slot."""
    if _mine is None:
        return torch.empty((count, size, size, 3), dtype=torch.uint8)
    return _mine.next(count)


def hand_over(images: Tensor) -> Tensor | Filled:
    """The batch as it leaves this process: in a worker the number of its slot."""
    return images if _mine is None else _mine.filled(len(images))
