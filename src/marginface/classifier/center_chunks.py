"""Reads class centers chunk by chunk: all of them, a shard, or a sample."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from marginface.classifier.options import ClassifierOptions
from marginface.classifier.sharding import Shard
from marginface.utils.distributed import add_over_ranks


@dataclass(frozen=True)
class Chunk:
    """Classes start to stop - 1 of those compared with."""

    number: int
    start: int
    stop: int


class CenterChunks:
    """Reads normalized class centers chunk by chunk; never all of them at once.

    Args:
        weight: (rows of this process, D) centers as stored.
        dtype: of all computations.
        per_class: K rows of `weight` in a row belong to one class.
        normalized: whether similarities are cosines rather than inner products.
        shard: which classes of all these are, None: all.
        sample: sorted ids of the classes to compare with, of all classes; None: all.
        options: memory of a chunk, precision of the products.
        rows_of_batch: R, for the size of a chunk.
    """

    def __init__(
        self,
        weight: Tensor,
        dtype: torch.dtype,
        *,
        per_class: int,
        normalized: bool,
        shard: Shard | None,
        sample: Tensor | None,
        options: ClassifierOptions,
        rows_of_batch: int,
    ) -> None:
        self.parameter, self.weight, self.dtype = weight, weight.detach(), dtype
        self.per_class, self.normalized = per_class, normalized
        self.shard, self.options = shard, options
        self.first = 0 if shard is None else shard.start
        here = len(weight) // per_class
        self.num_classes = here if shard is None else shard.num_classes
        self.index: Tensor | None = None
        if sample is not None:
            self.index = sample if shard is None else _between(sample, self.first, here)
        self.count = here if self.index is None else len(self.index)  # classes compared with here
        width = weight.shape[1]
        # Per class: values and two scratch matrices, K rows of centers and what is made of them,
        # for an optimizer its temporaries.
        wide = 4 if options.optimizer_in_backward else 2
        each = (3 * rows_of_batch + wide * width) * per_class * dtype.itemsize
        self.chunk_classes = max(options.chunk_bytes(weight.device) // each, 1)
        self._inverse_lengths: dict[int, Tensor] = {}  # by number of the chunk

    def chunks(self) -> Iterator[Chunk]:
        """All classes in parts that fit the memory."""
        for number, start in enumerate(range(0, self.count, self.chunk_classes)):
            yield Chunk(number, start, min(start + self.chunk_classes, self.count))

    def rows(self, chunk: Chunk) -> Tensor:
        """(n K, D) centers as they are stored, in the dtype of the computations."""
        return self.weight[self.rows_in_weight(chunk)].to(self.dtype)

    def rows_in_weight(self, chunk: Chunk) -> slice | Tensor:
        """Which rows of `weight` the (n K) centers of a chunk are."""
        if self.index is None:
            return slice(chunk.start * self.per_class, chunk.stop * self.per_class)
        return self.weight_rows(self.index[chunk.start : chunk.stop])

    def weight_rows(self, classes: Tensor) -> Tensor:
        """Rows of `weight` of classes that are counted from the first of this process."""
        if self.per_class == 1:
            return classes
        k = torch.arange(self.per_class, device=classes.device)
        return (classes[:, None] * self.per_class + k).flatten()

    def inverse_lengths(self, chunk: Chunk, rows: Tensor) -> Tensor | None:
        """(n K,) 1 / |w|, None for centers that are not normalized."""
        if not self.normalized:
            return None
        if chunk.number not in self._inverse_lengths:
            self._inverse_lengths[chunk.number] = inverse_length(rows)
        return self._inverse_lengths[chunk.number]

    def product(self, left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
        """Matrix product in the precision that `options.matmul_precision` names."""
        precision = self.options.product_precision
        if precision == "float32":
            if not left.is_cuda:
                return torch.mm(left, right, out=out)
            # What a trainer allows the backbone, TF32, is not float32.
            allowed = torch.backends.cuda.matmul.fp32_precision
            torch.backends.cuda.matmul.fp32_precision = "ieee"
            try:
                return torch.mm(left, right, out=out)
            finally:
                torch.backends.cuda.matmul.fp32_precision = allowed
        kind = torch.float16 if precision == "float16" else torch.bfloat16
        left, right = left.to(kind), right.to(kind)
        if left.is_cuda:
            result = torch.mm(left, right, out_dtype=torch.float32)
        elif kind == torch.float16:  # a CPU multiplies them as float32, as exactly as a GPU does
            result = torch.mm(left.float(), right.float())
        else:
            result = torch.mm(left, right)
        return result.to(self.dtype) if out is None else out.copy_(result)

    # -- the classes of the labels -----------------------------------------------------------------

    def local_positions(self, labels: Tensor) -> Tensor:
        """(R,) where the classes are among those compared with here; -1: with another process."""
        if self.shard is None and self.index is None:
            return labels
        local = labels - self.first
        if self.index is None:
            return torch.where((local >= 0) & (local < self.count), local, -1)
        if self.count == 0:
            return torch.full_like(labels, -1)
        at = torch.searchsorted(self.index, local).clamp_(max=self.count - 1)
        return torch.where(self.index[at] == local, at, -1)

    def own_similarities(self, directions: Tensor, labels: Tensor) -> Tensor:
        """(R, K) similarity of each row to its own centers, sampled or not; no gradient.

        0 where another process has the class.
        """
        local, elsewhere = self._own_classes(labels)
        if local is None:
            return directions.new_zeros(len(labels), self.per_class)
        rows = self.weight[self.weight_rows(local)].to(self.dtype)
        by_row = (
            directions if self.per_class == 1 else directions.repeat_interleave(self.per_class, 0)
        )
        own = (rows * by_row).sum(1)
        if self.normalized:
            own = own.mul_(inverse_length(rows))
        own = own.view(len(labels), self.per_class)
        return own if elsewhere is None else own.masked_fill_(elsewhere[:, None], 0.0)

    def target_similarity(self, directions: Tensor, labels: Tensor) -> Tensor:
        """(R,) similarity of each row to the (nearest) center of its own class; no gradient."""
        return self.nearest_own(self.own_similarities(directions, labels))

    def nearest_own(self, own: Tensor) -> Tensor:
        """(R,) from the (R, K) of `own_similarities`: the largest, from whoever has the class."""
        return self.sum_over_shards(own[:, 0] if self.per_class == 1 else own.amax(1))

    def classes_here(self, labels: Tensor) -> tuple[slice | Tensor, Tensor]:
        """Which labels are classes of this process, and these counted from its first one."""
        if self.shard is None:
            return slice(None), labels
        local = labels - self.first
        mine = ((local >= 0) & (local < len(self.weight) // self.per_class)).nonzero().squeeze(1)
        return mine, local[mine]

    def own_centers(self, labels: Tensor) -> Tensor:
        """(R, D) the one center of each label, not normalized; 0 where another process has it."""
        local, elsewhere = self._own_classes(labels)
        if local is None:
            return self.weight.new_zeros(len(labels), self.weight.shape[1], dtype=self.dtype)
        rows = self.weight[local].to(self.dtype)
        return rows if elsewhere is None else rows.masked_fill_(elsewhere[:, None], 0.0)

    def _own_classes(self, labels: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """(R,) the labels counted from the first class here, and where that is another process's.

        The first is clamped to classes that are here, None when there are none.
        """
        if self.shard is None:
            return labels, None
        here, local = len(self.weight) // self.per_class, labels - self.first
        if here == 0:
            return None, None
        return local.clamp(0, here - 1), (local < 0) | (local >= here)

    def sum_over_shards(self, partial: Tensor) -> Tensor:
        """Sum over the processes that share the classes."""
        return partial if self.shard is None else add_over_ranks(partial)


def _between(classes: Tensor, first: int, number: int) -> Tensor:
    """Those of sorted classes that are among `number` ones from the first, counted from there."""
    below = torch.stack([(classes < edge).sum() for edge in (first, first + number)])
    low, high = below.tolist()  # the only wait for a device that a sample needs
    return classes[low:high] - first


def inverse_length(rows: Tensor) -> Tensor:
    """(..., D) to (...) 1 / |row|, with the limit that torch.nn.functional.normalize has."""
    return rows.norm(dim=-1).clamp_min(1e-12).reciprocal()
