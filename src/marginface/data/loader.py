"""The DataLoader everything uses: batches decoded in the workers, straight to uint8."""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Sampler

from marginface.data.device_copies import DeviceCopies
from marginface.data.image_dataset import Batch, ImageDataset
from marginface.data.sampling import EpochOrder, GlobalBatchSampler, ShuffledOrder
from marginface.data.shared_memory import PREFETCH, FilledBuffer, SharedBatchBuffers, to_consumer

AHEAD = 2  # batches whose copy to a GPU has begun before they are asked for


class TimedLoader(DataLoader[Any]):
    """Adds up the seconds its consumer waited for batches.

    Args:
        batch_size: most images in one of `batches`.
        copies: of images to a GPU, begun ahead; None: batches stay on the host.

    Attributes:
        wait_seconds: since it was last set to zero.
    """

    wait_seconds = 0.0

    def __init__(
        self,
        dataset: ImageDataset,
        batches: Sampler[list[int]],
        batch_size: int,
        *,
        num_workers: int,
        copies: DeviceCopies | None,
        persistent: bool,
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=_light_batch,  # type: ignore[arg-type]  # batches come whole
            persistent_workers=persistent and num_workers > 0,
            prefetch_factor=PREFETCH if num_workers else None,  # what the slots are counted for
        )
        self._slot_shape = (num_workers, batch_size, dataset.image_size)
        self._copies = copies
        self._slots: SharedBatchBuffers | None = None

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a generator is enough
        if self.num_workers and self._iterator is None:  # new workers will be started
            self._slots = SharedBatchBuffers(*self._slot_shape)
            self.worker_init_fn = partial(_begin_worker, self._slots)
        slots = self._slots
        batches = super().__iter__()
        if not self.persistent_workers:  # the slots go with these workers
            self._slots = self.worker_init_fn = None
        whole = _whole_batches(batches, slots, pin=self._copies is not None)
        if self._copies is not None:  # in a thread, while the host queues work for the GPU
            whole = self._copies.ahead(whole, AHEAD)
        while True:
            start = time.perf_counter()
            batch = next(whole, None)
            self.wait_seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def _whole_batches(
    batches: Iterator[Any], slots: SharedBatchBuffers | None, pin: bool
) -> Iterator[Batch]:
    """What workers sent as batches of tensors, images in page-locked memory when asked for."""
    for images, labels, indices in batches:
        if isinstance(images, FilledBuffer):
            assert slots is not None
            images = slots.take(images, pin)
        yield images, torch.from_numpy(labels), torch.from_numpy(indices)


def make_loader(
    dataset: ImageDataset,
    *,
    batch_size: int,
    num_workers: int = 0,
    shuffle: bool = False,
    seed: int = 0,
    drop_last: bool = False,
) -> TimedLoader:
    """A loader of (images uint8 (B, 3, S, S), labels int64 (B,), indices int64 (B,)).

    Args:
        dataset: any of ours.
        batch_size: images per batch.
        num_workers: decoding processes; 0 decodes in this one.
        shuffle: a new order each epoch, decided by `seed` and the epoch only.
        seed: of the order.
        drop_last: leave out the last, incomplete batch.
    """
    order = ShuffledOrder(len(dataset)) if shuffle else EpochOrder(len(dataset))
    sampler = GlobalBatchSampler(order, batch_size, seed=seed, drop_last=drop_last)
    return batch_loader(dataset, sampler, batch_size, num_workers=num_workers)


def batch_loader(
    dataset: ImageDataset,
    batches: Sampler[list[int]],
    batch_size: int,
    *,
    num_workers: int,
    copies: DeviceCopies | None = None,
    persistent: bool = False,
) -> TimedLoader:
    """A loader over given batches of at most `batch_size` indices."""
    return TimedLoader(
        dataset,
        batches,
        batch_size,
        num_workers=num_workers,
        copies=copies,
        persistent=persistent,
    )


def _light_batch(batch: Batch) -> tuple[Any, Any, Any]:
    """What leaves the process that decoded: a tensor's way out of a worker is long."""
    images, labels, indices = batch
    return to_consumer(images), labels.numpy(), indices.numpy()


def _begin_worker(slots: SharedBatchBuffers, worker: int) -> None:
    # Each worker is a process of its own; threads on top of that only fight for the cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    slots.begin_worker(worker)
