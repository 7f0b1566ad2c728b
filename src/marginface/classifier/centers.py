"""The class centers of a head: all of them or one shard, compared with as a whole or as a sample.

Tensor names: B batch, R its rows with a label, C classes, K centers of a class, D embedding.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from marginface.classifier.center_chunks import CenterChunks
from marginface.classifier.center_step import CenterStep
from marginface.classifier.options import ClassifierOptions
from marginface.classifier.sampled_gradient import keep_order_known
from marginface.classifier.sampling import sample_classes
from marginface.classifier.sharding import Shard, init_centers
from marginface.utils.distributed import (
    gather_counted_rows,
    gather_for_shards,
    gather_rows_of_any_number,
    rows_unless_equal,
)
from marginface.utils.errors import InputError
from marginface.utils.hardware import queue_to

IGNORED_LABEL = -1


class LabeledRows(NamedTuple):
    """The rows of a batch that have a label."""

    embeddings: Tensor  # (R, D)
    labels: Tensor  # (R,)
    of_ranks: tuple[int, ...]  # how many of the R rows each process has
    equal_parts: bool  # whether it is known that every process has as many as this one


class _KnownLabels(NamedTuple):
    """What is known about the labels of a batch without asking a device."""

    labels: Tensor
    version: int  # of their memory, which somebody may have changed since
    range: tuple[int, int]
    labeled: Tensor | None  # (R,) rows with a label; None: all
    equal_parts: bool


class ClassCenters(nn.Module):
    """The (C K, D) parameter of a head, and which part of it this process and this step see.

    Args:
        num_classes: C, number of identities, at least 2.
        embedding_size: D, length of the embeddings.
        centers_per_class: K; the K rows of a class follow each other.
        shard: the classes that this process holds; None: all of them. With a shard the loss has to
            be computed by all processes together, each with its part of the batch: it is the mean
            over the global batch, the same everywhere, and embeddings get `world` times their
            gradient, because data-parallel training averages that of the backbone.
        options: how the loss over all classes is computed.
        seed: of the sampled classes.

    Raises:
        InputError: a size out of range.
    """

    weight: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        centers_per_class: int = 1,
        shard: Shard | None = None,
        options: ClassifierOptions | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(num_classes, embedding_size)
        self.num_classes, self.embedding_size = num_classes, embedding_size
        self.centers_per_class = k = centers_per_class
        self.shard, self.options, self.seed = shard, options or ClassifierOptions(), seed
        start, stop = (shard.start, shard.stop) if shard else (0, num_classes)
        # N(0, 0.01) as in insightface and X2-Softmax: the length sets how fast directions turn.
        drawn = init_centers(num_classes * k, embedding_size, 0.01, start * k, stop * k)
        self.weight = nn.Parameter(drawn)
        if self.options.samples and self.options.sampling == "sparse":
            keep_order_known(self.weight)
        # Where the backward pass is to step the centers itself: what begins such a step.
        self.step_centers_in_backward: Callable[[], CenterStep] | None = None
        self._known: _KnownLabels | None = None

    @property
    def num_rows(self) -> int:
        """C K, the centers of all classes on all processes."""
        return self.num_classes * self.centers_per_class

    def chunks(
        self,
        dtype: torch.dtype,
        rows_of_batch: int,
        *,
        normalized: bool,
        sample: Tensor | None = None,
    ) -> CenterChunks:
        """The centers to compare with, to be read chunk by chunk.

        Args:
            dtype: of all computations.
            normalized: compare by cosines, not by inner products.
            sample: only these classes.
        """
        return CenterChunks(
            self.weight,
            dtype,
            per_class=self.centers_per_class,
            normalized=normalized,
            shard=self.shard,
            sample=sample,
            options=self.options,
            rows_of_batch=rows_of_batch,
        )

    def know_labels(self, labels: Tensor, on_host: Tensor, equal_parts: bool = False) -> None:
        """Look at labels on the host, so that the next step need not wait for those on a device.

        Args:
            labels: (B,) as the next call of the head will get them.
            on_host: the same numbers.
            equal_parts: whether every process has B rows in that call, all of them with a label
                that is a class, so that nobody has to ask. Labels must not be changed after that.

        Raises:
            InputError: equal parts, and a row without a label.
        """
        known = _known_labels(labels, on_host, equal_parts)
        if equal_parts and known.labeled is not None:
            raise InputError(
                f"a row of this batch has the label {IGNORED_LABEL}, and all processes count on "
                "rows with a class: give it one, or let the dataset's `may_skip` be True"
            )
        self._known = known

    def _look_at(self, labels: Tensor) -> _KnownLabels:
        known, self._known = self._known, None
        if known is not None and known.labels is labels and known.version == labels._version:
            return known
        return _known_labels(labels, labels.detach().cpu(), equal_parts=False)

    def labeled_rows(self, embeddings: Tensor, labels: Tensor) -> LabeledRows:
        """Rows with a label: those of this process, or with a shard those of all processes.

        Raises:
            InputError: a label that is not a class, or processes without their shard.
        """
        # One wait for the device unless the labels are known.
        known = self._look_at(labels)
        low, high = known.range
        if self.shard is None or known.equal_parts:
            self._check_range(low, high)
        if known.labeled is not None:
            embeddings, labels = embeddings[known.labeled], labels[known.labeled]
        if self.shard is None:
            return LabeledRows(embeddings, labels, (len(labels),), known.equal_parts)
        counts = tuple(rows_unless_equal(len(labels), labels.device, known.equal_parts))
        if len(counts) != self.shard.world:
            raise InputError(
                f"this head has one of {self.shard.world} parts of the class centers, and "
                f"{len(counts)} processes compute: all {self.shard.world} have to, each with its "
                "part"
            )
        gathered = gather_for_shards(embeddings, counts, self.options.communication_precision)
        labels = gather_counted_rows(labels, counts)
        if not known.equal_parts:
            self.check_labels(labels)
        return LabeledRows(gathered, labels, counts, known.equal_parts)

    def check_labels(self, labels: Tensor) -> None:
        """InputError for a label that is not a class."""
        self._check_range(*_range_of(labels))

    def _check_range(self, low: int, high: int) -> None:
        if low < IGNORED_LABEL or high >= self.num_classes:
            raise InputError(
                f"labels from {low} to {high} for {self.num_classes} classes: they must be in "
                f"[0, {self.num_classes}), or -1 for a row that adds no loss"
            )

    def sample(self, labels: Tensor, step: int) -> Tensor | None:
        """Sorted ids of the classes that a training step compares with; None: all of them."""
        if not (self.options.samples and self.training):
            return None
        seen = gather_rows_of_any_number(labels) if self.shard is None else labels
        return sample_classes(seen, self.num_classes, self.options.sample_rate, self.seed, step)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, embedding_size={self.embedding_size}"


def check_sizes(num_classes: int, embedding_size: int) -> None:
    """InputError for sizes that no head can have."""
    if embedding_size < 1:
        raise InputError(f"embedding_size must be at least 1, got {embedding_size}")
    if num_classes < 2:
        raise InputError(
            f"num_classes must be at least 2, got {num_classes}: "
            "a classifier needs a second identity to tell the first one from"
        )


def _known_labels(labels: Tensor, on_host: Tensor, equal_parts: bool) -> _KnownLabels:
    """What the same numbers on the host tell."""
    low, high = _range_of(on_host)
    labeled = None
    if low == IGNORED_LABEL:
        labeled = queue_to(labels.device, (on_host != IGNORED_LABEL).nonzero().squeeze(1))
    return _KnownLabels(labels, labels._version, (low, high), labeled, equal_parts)


def _range_of(labels: Tensor) -> tuple[int, int]:
    """The least and the greatest label; 0 and 0 when there are none."""
    if len(labels) == 0:
        return 0, 0
    on_host = labels.detach().cpu().numpy()  # quicker than two kernels and their results
    return int(on_host.min()), int(on_host.max())


def full_precision(embeddings: Tensor) -> Tensor:
    """float64 stays, everything else becomes float32."""
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
