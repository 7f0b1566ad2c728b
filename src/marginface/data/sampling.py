"""Which images make up which batch: one seeded order per epoch, whoever carries it out.

The global batch of an optimizer step is a slice of the epoch's permutation. It is cut into
accumulation parts and each part into ranks, so 1, 2 or 8 processes, any number of accumulation
steps and a resumed run see the same images at the same step.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from marginface.errors import InputError


def epoch_order(num_samples: int, seed: int, epoch: int, shuffle: bool) -> NDArray[np.int64]:
    """The order of the samples in an epoch, from (seed, epoch) alone."""
    if not shuffle:
        return np.arange(num_samples)
    return np.random.default_rng([seed, epoch]).permutation(num_samples)


class GlobalBatchSampler(Sampler[list[int]]):
    """Yields this rank's part of every global batch, from a given step on.

    Args:
        num_samples: size of the dataset.
        batch_size: images per optimizer step, over all ranks and accumulation parts.
        seed: decides the order together with the epoch.
        shuffle: False keeps the dataset's order.
        rank, world_size: this process and the number of them.
        accumulate: micro-batches per optimizer step.
        start: epoch and step in it where the first pass begins, to go on with a run.
        drop_last: leave out the last, incomplete batch of an epoch (needed to split it evenly).

    Raises:
        InputError: a batch that the processes do not divide.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        start: tuple[int, int] = (0, 0),
        drop_last: bool = True,
    ) -> None:
        self.micro_batch = micro_batch_size(batch_size, world_size, accumulate)
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.seed, self.shuffle = seed, shuffle
        self.rank, self.world_size = rank, world_size
        self.accumulate = accumulate
        self.steps_per_epoch = steps_per_epoch(num_samples, batch_size, drop_last)
        self.epoch, self._first_step = start

    @property
    def sampler(self) -> "GlobalBatchSampler":
        """Where Lightning looks for set_epoch: at a loader's batch_sampler.sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Lightning says which epoch comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        # Only the pass after a resume starts inside an epoch.
        first, self._first_step = self._first_step, 0
        order = epoch_order(self.num_samples, self.seed, self.epoch, self.shuffle)
        for step in range(first, self.steps_per_epoch):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            for part in range(self.accumulate):
                start = (part * self.world_size + self.rank) * self.micro_batch
                yield batch[start : start + self.micro_batch].tolist()
        self.epoch += 1  # for callers that do not say which comes next

    def __len__(self) -> int:
        """Micro-batches of a whole epoch, also when the next pass starts inside one."""
        return self.steps_per_epoch * self.accumulate


class EvaluationSampler(Sampler[list[int]]):
    """Every sample once over all ranks, in equally many batches per rank.

    Ranks that get fewer samples see index -1 instead of a repeated sample: DDP synchronises buffers
    at every forward, so all ranks must make the same number of them.
    """

    def __init__(
        self, num_samples: int, batch_size: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        per_rank = -(-num_samples // world_size)
        mine = np.full(per_rank, -1)
        indices = np.arange(rank, num_samples, world_size)
        mine[: len(indices)] = indices
        self.batches = [
            mine[start : start + batch_size].tolist() for start in range(0, per_rank, batch_size)
        ]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def steps_per_epoch(num_samples: int, batch_size: int, drop_last: bool = True) -> int:
    """Optimizer steps in an epoch."""
    return num_samples // batch_size if drop_last else -(-num_samples // batch_size)


def micro_batch_size(batch_size: int, world_size: int, accumulate: int) -> int:
    """Images one process handles at once; InputError names the nearest batches that divide."""
    parts = world_size * accumulate
    if batch_size < 1 or batch_size % parts:
        lower = batch_size // parts * parts
        nearest = [str(b) for b in (lower, lower + parts) if b > 0] or [str(parts)]
        raise InputError(
            f"data.batch_size={batch_size} is the batch of one optimizer step and cannot be split "
            f"over {world_size} processes x {accumulate} accumulation steps; "
            f"use {' or '.join(nearest)}"
        )
    return batch_size // parts
