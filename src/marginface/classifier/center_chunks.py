"""Reads class centers chunk by chunk: all of them, a shard, or a sample."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
            inside = (sample >= self.first) & (sample < self.first + here)
            self.index = sample[inside] - self.first
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
        if self.options.matmul_precision == "float32":
            return torch.mm(left, right, out=out)
        left, right = left.bfloat16(), right.bfloat16()
        if left.is_cuda:
            result = torch.mm(left, right, out_dtype=torch.float32)
        else:
            result = torch.mm(left, right)
        return result.to(self.dtype) if out is None else out.copy_(result)

    # -- the classes of the labels -----------------------------------------------------------------

    def local_positions(self, labels: Tensor) -> Tensor:
        """(R,) where the classes are among those compared with here; -1: with another process."""
        local = labels - self.first
        if self.index is None:
            return torch.where((local >= 0) & (local < self.count), local, -1)
        if self.count == 0:
            return torch.full_like(labels, -1)
        at = torch.searchsorted(self.index, local).clamp_(max=self.count - 1)
        return torch.where(self.index[at] == local, at, -1)

    def target_centers(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which rows of the batch have their class here, sampled or not, and its centers.

        Returns:
            (r,) rows of the batch, (r, K) rows of `weight`, (r, K, D) centers, not normalized.
        """
        here = len(self.weight) // self.per_class
        local = labels - self.first
        mine = ((local >= 0) & (local < here)).nonzero().squeeze(1)
        index = self.weight_rows(local[mine]).view(len(mine), self.per_class)
        return mine, index, self.weight[index].to(self.dtype)

    def target_similarity(self, directions: Tensor, labels: Tensor) -> Tensor:
        """(R,) similarity of each row to the (nearest) center of its own class; no gradient."""
        mine, _, rows = self.target_centers(labels)
        if self.normalized:
            rows = F.normalize(rows, dim=-1)
        own = torch.einsum("rd,rkd->rk", directions[mine], rows)
        result = directions.new_zeros(len(labels))
        result[mine] = own.amax(1)
        return self.sum_over_shards(result)

    def sum_over_shards(self, partial: Tensor) -> Tensor:
        """Sum over the processes that share the classes."""
        return partial if self.shard is None else add_over_ranks(partial)


def inverse_length(rows: Tensor) -> Tensor:
    """(..., D) to (...) 1 / |row|, with the limit that torch.nn.functional.normalize has."""
    return rows.norm(dim=-1).clamp_min(1e-12).reciprocal()
