"""The DataLoader everything uses: batches decoded in the workers, straight to uint8."""

import time
from collections.abc import Iterator
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Sampler

from marginface.data.dataset import Batch, FaceDataset
from marginface.data.sampling import GlobalBatchSampler, InOrder, Shuffled


class TimedLoader(DataLoader[Any]):
    """Adds up the seconds its consumer waited for batches.

    Attributes:
        wait_seconds: since it was last set to zero.
    """

    wait_seconds = 0.0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # a generator is enough
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.wait_seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def make_loader(
    dataset: FaceDataset,
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
    order = Shuffled(len(dataset)) if shuffle else InOrder(len(dataset))
    sampler = GlobalBatchSampler(order, batch_size, seed=seed, drop_last=drop_last)
    return batch_loader(dataset, sampler, num_workers=num_workers)


def batch_loader(
    dataset: FaceDataset,
    batches: Sampler[list[int]],
    *,
    num_workers: int,
    pin_memory: bool = False,
    persistent: bool = False,
) -> TimedLoader:
    """A loader over given batches of indices."""
    return TimedLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_already_a_batch,
        worker_init_fn=_one_thread,
        pin_memory=pin_memory,
        persistent_workers=persistent and num_workers > 0,
    )


def _already_a_batch(batch: Any) -> Any:
    return batch


def _one_thread(_: int) -> None:
    # Each worker is a process of its own; threads on top of that only fight for the cores.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
