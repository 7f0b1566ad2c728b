"""Which images make up which batch: one seeded order per epoch for any number of processes.

The global batch of an optimizer step is a slice of the epoch's order, drawn from (seed, epoch). It
is cut into accumulation parts and each part into ranks, so 1, 2 or 8 processes, any number of
accumulation steps and a resumed run see the same images at the same step.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from marginface.utils.errors import InputError


class EpochOrder:
    """Image indices of an epoch, from (seed, epoch) alone: here every image once, as stored.

    Attributes:
        length: of an epoch, in images.
    """

    def __init__(self, num_samples: int) -> None:
        self.length = num_samples

    def __call__(self, seed: int, epoch: int) -> NDArray[np.int64]:
        return np.arange(self.length)


class ShuffledOrder(EpochOrder):
    """Every image once, in a random order over all of them."""

    def __call__(self, seed: int, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([seed, epoch]).permutation(self.length)


class GroupedOrder(EpochOrder):
    """Every image once, `size` of an identity next to each other; groups in random order.

    Groups are smaller where an identity runs out of images.

    Args:
        labels: (N,) identity of each image.
        size: images next to each other.
    """

    def __init__(self, labels: NDArray[np.int64], size: int) -> None:
        super().__init__(len(labels))
        self.labels = labels
        self.size = size

    def __call__(self, seed: int, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([seed, epoch])
        order, starts, counts = _by_identity(self.labels, rng)
        place = np.arange(self.length) - np.repeat(starts, counts)  # within the identity
        group = np.cumsum(place % self.size == 0) - 1
        rank = rng.permutation(int(group[-1]) + 1)
        return order[np.argsort(rank[group], kind="stable")]


class ClassBalancedOrder(EpochOrder):
    """Batches of m identities with k images each, every identity equally often.

    Identities come in random rounds, without one twice in a batch; the images of each come in
    random order and begin anew when they are used up, so one with fewer than k is seen repeatedly.

    Args:
        labels: (N,) identity of each image.
        batch_size: m x k.
        images_per_class: k.

    Raises:
        InputError: k does not divide the batch, or there are fewer than m identities.
    """

    def __init__(self, labels: NDArray[np.int64], batch_size: int, images_per_class: int) -> None:
        classes = len(np.unique(labels))
        per_batch = batch_size // images_per_class
        if batch_size % images_per_class or per_batch > classes:
            raise InputError(
                f"data.images_per_class={images_per_class} must divide data.batch_size="
                f"{batch_size}, and leave at most {classes} identities a batch (got "
                f"{batch_size / images_per_class:g})"
            )
        super().__init__(len(labels) // batch_size * batch_size)
        self.labels = labels
        self.images_per_class = images_per_class
        self.classes_per_batch = per_batch

    def __call__(self, seed: int, epoch: int) -> NDArray[np.int64]:
        rng = np.random.default_rng([seed, epoch])
        order, starts, counts = _by_identity(self.labels, rng)
        visits = self.length // self.images_per_class
        whole = len(counts) // self.classes_per_batch * self.classes_per_batch
        rounds = max(1, -(-visits // whole))
        classes = np.concatenate([rng.permutation(len(counts))[:whole] for _ in range(rounds)])
        classes = classes[:visits]
        # How often a class came before tells which of its images are next.
        by_class = np.argsort(classes, kind="stable")
        times = np.empty(visits, np.int64)
        sizes = np.bincount(classes, minlength=len(counts))
        times[by_class] = np.arange(visits) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        k = self.images_per_class
        nth = times[:, None] * k + np.arange(k)
        return order[starts[classes, None] + nth % counts[classes, None]].reshape(-1)


def _by_identity(
    labels: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Indices sorted by label, in random order within each; where each begins; how many it has."""
    shuffled = rng.permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    return order, np.cumsum(counts) - counts, counts


class GlobalBatchSampler(Sampler[list[int]]):
    """Yields this rank's part of every global batch, from a given step on.

    Args:
        order: image indices of an epoch from (seed, epoch).
        batch_size: images per optimizer step, over all ranks and accumulation parts.
        seed: decides the order together with the epoch.
        rank, world_size: this process and the number of them.
        accumulate: micro-batches per optimizer step.
        start: epoch and step in it where the first pass begins, to resume a run.
        drop_last: leave out the last, incomplete batch of an epoch (needed to split it evenly).

    Raises:
        InputError: a batch that the processes do not divide.
    """

    def __init__(
        self,
        order: EpochOrder,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        accumulate: int = 1,
        start: tuple[int, int] = (0, 0),
        drop_last: bool = True,
    ) -> None:
        self.micro_batch = micro_batch_size(batch_size, world_size, accumulate)
        self.order = order
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world_size = rank, world_size
        self.accumulate = accumulate
        self.steps_per_epoch = steps_per_epoch(order.length, batch_size, drop_last)
        self.epoch, self._first_step = start

    @property
    def sampler(self) -> "GlobalBatchSampler":
        """Where Lightning looks for set_epoch: at a loader's batch_sampler.sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        # Only the pass after a resume starts inside an epoch.
        first, self._first_step = self._first_step, 0
        order = self.order(self.seed, self.epoch)
        for step in range(first, self.steps_per_epoch):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            for part in range(self.accumulate):
                start = (part * self.world_size + self.rank) * self.micro_batch
                yield batch[start : start + self.micro_batch].tolist()
        self.epoch += 1  # for callers that do not set the epoch

    def __len__(self) -> int:
        """Micro-batches of a whole epoch, also when the next pass starts inside one."""
        return self.steps_per_epoch * self.accumulate


class EvaluationSampler(Sampler[list[int]]):
    """Every sample once over all ranks, in equally many batches per rank.

    Ranks that get fewer samples see index -1 instead of a repeated sample: DDP synchronizes buffers
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
