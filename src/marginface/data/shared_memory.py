"""Shared memory of reading processes: batch buffers, decoded images, faulty images."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from marginface.data.images import Pixels
from marginface.utils.console import print_warning
from marginface.utils.errors import InputError

PREFETCH = 2  # batches a worker prepares ahead, torch's default


@dataclass(frozen=True)
class FilledBuffer:
    """Which slot holds a batch, and how many images of it."""

    worker: int
    slot: int
    count: int


class SharedBatchBuffers:
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
            batch_buffers_bytes(num_workers, batch_size, image_size), "data.num_workers"
        )
        self._images = torch.empty(shape, dtype=torch.uint8).share_memory_()
        self._worker = self._turn = -1

    def begin_worker(self, worker: int) -> None:
        """Make this process worker number `worker`: its batches go into its slots."""
        global _worker_buffers
        self._worker = worker
        _worker_buffers = self

    def next(self, count: int) -> Tensor:
        """(count, S, S, 3) to fill."""
        self._turn += 1
        return self._images[self._worker, self._turn % (PREFETCH + 1), :count]

    def filled(self, count: int) -> FilledBuffer:
        """What to send for the batch last filled, of which `count` images are used."""
        return FilledBuffer(self._worker, self._turn % (PREFETCH + 1), count)

    def take(self, filled: FilledBuffer, pin: bool) -> Tensor:
        """A copy of a batch, uint8 (B, 3, S, S); in page-locked memory when asked for."""
        images = self._images[filled.worker, filled.slot, : filled.count]
        copy = torch.empty(images.shape, dtype=torch.uint8, pin_memory=pin).copy_(images)
        return copy.permute(0, 3, 1, 2)


def batch_buffers_bytes(num_workers: int, batch_size: int, image_size: int) -> int:
    """Shared memory that the slots of one loader take."""
    return num_workers * (PREFETCH + 1) * batch_size * image_size * image_size * 3


_worker_buffers: SharedBatchBuffers | None = None  # of this process when it is a worker


def new_batch(count: int, size: int) -> Tensor:
    """uint8 (count, size, size, 3) for a batch: in a worker its next slot."""
    if _worker_buffers is None:
        return torch.empty((count, size, size, 3), dtype=torch.uint8)
    return _worker_buffers.next(count)


def to_consumer(images: Tensor) -> Tensor | FilledBuffer:
    """The batch as it leaves this process: in a worker the number of its slot."""
    return images if _worker_buffers is None else _worker_buffers.filled(len(images))


_UNKNOWN, _KEPT, _FAULTY = range(3)


class SharedImageCache:
    """One state per image and, if asked for, its pixels, in shared memory.

    Args:
        count: N images.
        image_size: S of the images to keep; None keeps none.

    Raises:
        InputError: less shared memory than the images need.
    """

    def __init__(self, count: int, image_size: int | None) -> None:
        self._state = torch.zeros(count, dtype=torch.uint8).share_memory_()
        self._pixels = None
        if image_size is not None:
            shape = (count, image_size, image_size, 3)
            check_shared_memory(count * image_size * image_size * 3, "data.dataset.cache")
            self._pixels = torch.empty(shape, dtype=torch.uint8).share_memory_()

    def get(self, index: int, out: Pixels) -> bool:
        """Copy a kept image to `out`; False when it is not here."""
        if self._pixels is None or self._state[index] != _KEPT:
            return False
        out[:] = self._pixels[index].numpy()
        return True

    def put(self, index: int, pixels: Pixels) -> None:
        """Keep an image, if images are kept."""
        if self._pixels is not None:
            self._pixels[index].numpy()[:] = pixels
            self._state[index] = _KEPT  # after the pixels: another process may read it at once

    def is_faulty(self, index: int) -> bool:
        return bool(self._state[index] == _FAULTY)

    def mark_faulty(self, index: int, reason: str) -> None:
        self._state[index] = _FAULTY
        print_warning(f"left out: {reason}")

    @property
    def faulty_count(self) -> int:
        return int((self._state == _FAULTY).sum())


def check_shared_memory(needed: int, setting: str) -> None:
    """InputError when less than `needed` bytes are left; the kernel would end the process."""
    shared = Path("/dev/shm")
    free = shutil.disk_usage(shared).free if shared.is_dir() else needed
    if needed > free:
        raise InputError(
            f"{setting} needs {needed / 2**30:.2f} GiB of shared memory, {shared} has "
            f"{free / 2**30:.2f} GiB left; enlarge it (docker run --shm-size) or change {setting}"
        )
