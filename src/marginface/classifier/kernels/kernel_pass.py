"""A batch against the class centers in GPU kernels: the sum over other classes, and gradients.

Forward makes unit rows of the centers and one product whose epilogue adds up exponentials. Backward
makes the product again, this time into gradient weights of a chunk of classes, and multiplies them
with both sides. The unit rows of all centers wait in the memory that their gradient will have,
where there is such memory; otherwise they are made again chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from marginface.classifier.center_chunks import CenterChunks, Chunk
from marginface.classifier.center_step import CenterStep
from marginface.classifier.chunked_pass import PassInputs
from marginface.classifier.kernel_inputs import BatchRows, Halves, Logits
from marginface.classifier.kernels import launch
from marginface.classifier.kernels.launcher import INTERPRETED
from marginface.classifier.kernels.tiles import classes_of_chunk, tile_of
from marginface.classifier.losses.binary import SoftplusSum
from marginface.classifier.losses.cross_entropy import LogSumExp
from marginface.classifier.negative_kind import PLAIN
from marginface.classifier.options import MIB

_PARTIAL_BYTES = 32 * MIB  # of the partial sums of one launch


def prepare_rows(
    vectors: Tensor,
    labels: Tensor,
    centers: CenterChunks,
    *,
    row_lengths: bool = False,
    center_lengths: bool = False,
) -> BatchRows:
    """Unit rows of the batch and the products with their own centers, in one launch.

    Args:
        vectors: (R, D) float32, without a gradient.
        labels: (R,) classes, all of them in range.
        row_lengths, center_lengths: whether products are with these lengths; without: cosines.
    """
    vectors, labels = vectors.contiguous(), labels.long().contiguous()
    halves = _empty_halves(len(vectors), vectors, centers.options.splits_operands)
    inverse, own, own_slope = launch.batch_rows(
        vectors, centers.weight, labels, centers.first, halves, row_lengths, center_lengths
    )
    position = centers.local_positions(labels)
    own = centers.sum_over_shards(own)
    return BatchRows(vectors, halves, inverse, own, own_slope, position)


class KernelPass:
    """Goes over the classes; keeps unit rows in `gradient_memory` when that is given.

    Args:
        inputs: the batch and the centers.
        logits: how cosines become logits.
        rows: the batch, prepared with the same lengths.
        gradient_memory: (classes compared with, D) float32, overwritten.
    """

    def __init__(
        self, inputs: PassInputs, logits: Logits, rows: BatchRows, gradient_memory: Tensor | None
    ) -> None:
        self.inputs, self.logits, self.rows = inputs, logits, rows
        self.centers = centers = inputs.centers
        self.split = centers.options.splits_operands
        reduction = inputs.reduction
        assert isinstance(reduction, LogSumExp | SoftplusSum)
        self.reduction = reduction
        self.tile = tile_of(
            split=self.split,
            curve=self.logits.kind.curve,
            binary=self.logits.binary,
            interpreted=INTERPRETED,
        )
        self.memory = gradient_memory
        self._kept: Tensor | None = None  # all unit rows, where one float16 matrix holds them
        if gradient_memory is not None and not self.split:
            halves = gradient_memory.view(-1).view(torch.float16)
            self._kept = halves[len(halves) // 2 :].view_as(gradient_memory)
        self.inverse = rows.inverse.new_empty(centers.count)
        self._scratch: Halves | None = None
        number, width = rows.vectors.shape
        each = (4 if self.split else 2) * number  # gradient weights of a class
        if gradient_memory is None:  # unit rows, and where there is a step the gradient
            each += (4 if self.split else 2) * width + (4 if inputs.begin_step else 0) * width
        budget = centers.options.kernel_chunk_bytes(4 * centers.count * width, self.split)
        self.chunk_classes = classes_of_chunk(each, budget, number)

    def reduce(self) -> None:
        """The reduction over all other classes."""
        rows, reduction = self.rows, self.reduction
        reduction.begin(len(rows.vectors), rows.vectors.dtype, rows.vectors.device)
        for chunk in self._forward_chunks():
            if isinstance(reduction, SoftplusSum):
                sums, _ = self._scores(chunk, reduction.threshold, False)
                reduction.add(sums.sum(0, dtype=torch.float64))
                continue
            sums, tops = self._scores(chunk, None, not reduction.bounded)
            if tops is None:
                reduction.add(sums.sum(0, dtype=torch.float64))
            else:
                reduction.add_tiles(sums, tops.mul_(_LN2))
        reduction.finish()
        self._scratch = None

    def partial_sums(self) -> Tensor:
        """(tiles, R) sums of exp(logit) over other classes, for logits that need no maximum."""
        parts = [self._scores(chunk, None, False)[0] for chunk in self._forward_chunks()]
        self._scratch = None
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _scores(
        self, chunk: Chunk, threshold: Tensor | None, with_top: bool
    ) -> tuple[Tensor, Tensor | None]:
        rows = self.rows
        return launch.scores(
            rows.halves, self._halves(chunk, ready=False), rows.position, rows.inverse,
            self.inverse[chunk.start : chunk.stop], chunk.start, self.logits, threshold,
            with_top, self.tile,
        )  # fmt: skip

    def gradients(
        self,
        own_upstream: Tensor,
        upstream: Tensor,
        buffer: Tensor | None,
        step: CenterStep | None,
        of_mean: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The gradient of the vectors and, for a threshold, the sum of those of all other logits.

        The gradient of the centers goes into buffer, the memory that was given, or to step.

        Args:
            own_upstream, upstream: (R,) gradients of the own product and of the reduction.
            of_mean: () what both are still to be multiplied with.
        """
        rows = self.rows
        kept = self.memory is not None and self.memory is buffer
        if not kept:  # a second backward pass: that memory is the first one's gradient now
            self.memory = self._kept = None
        threshold = self.reduction.threshold if isinstance(self.reduction, SoftplusSum) else None
        value = self.reduction.value if threshold is None else rows.inverse
        upstream = upstream.contiguous()
        longest = None
        if self.logits.center_lengths:
            longest = (
                self.inverse.amin().reciprocal() if len(self.inverse) else upstream.new_ones(())
            )
        factor, own, unscale = launch.row_factors(
            upstream, own_upstream.contiguous(), rows.own_slope, rows.inverse, longest, of_mean,
            self.logits,
        )  # fmt: skip
        number, width = rows.vectors.shape
        largest = min(self.chunk_classes, self.centers.count)
        stride = -(-largest // 64) * 64  # rows of cuBLAS's operands begin where it likes them to
        into = _empty_halves(number, rows.vectors, self.split, stride)
        room = (
            None if buffer is not None or step is None else rows.vectors.new_empty(largest, width)
        )
        of_vectors: Tensor | None = None
        of_logits: Tensor | None = None
        for chunk in self._chunks(self.chunk_classes):
            n = chunk.stop - chunk.start
            w, q = self._halves(chunk, ready=kept), rows.halves
            inverse = self.inverse[chunk.start : chunk.stop]
            sums = launch.weights(
                q, w, rows.position, rows.inverse, inverse, chunk.start, self.logits, threshold,
                value, factor, own, into, self.tile,
            )  # fmt: skip
            if sums is not None:
                part = sums.sum(0).dot(upstream)
                of_logits = part if of_logits is None else of_logits.add_(part)
            p = into.part(slice(None), slice(n))
            of_vectors = _add_products(of_vectors, p, w)
            if buffer is None and room is None:
                continue
            made = buffer[chunk.start : chunk.stop] if buffer is not None else room[:n]  # type: ignore[index]
            launch.product(p.hi.T, q.hi, out=made)
            if self.split:
                launch.add_product(made, p.lo.T, q.hi)
                launch.add_product(made, p.hi.T, q.lo)
            self._finish(chunk, made, inverse, unscale, step)
        if step is not None and step.numbers is not None:
            # Autograd does not see what kernels write; a second backward pass must be noticed.
            torch.autograd.graph.increment_version(self.centers.parameter)
        self._scratch = self.memory = self._kept = None
        if of_vectors is None:
            of_vectors = torch.zeros_like(rows.vectors)
        launch.project(
            of_vectors, rows.vectors, None, rows.inverse, unscale, self.logits.row_lengths
        )
        if self.logits.binary and of_logits is None:
            of_logits = upstream.new_zeros(())
        return of_vectors, of_logits

    def _finish(
        self,
        chunk: Chunk,
        made: Tensor,
        inverse: Tensor,
        unscale: Tensor,
        step: CenterStep | None,
    ) -> None:
        """Gradients of unit rows to those of the centers, or to a step: nothing reads these now."""
        lengths = self.logits.center_lengths
        if step is not None and step.numbers is not None:
            rows = self.centers.rows_in_weight(chunk)
            launch.project_and_step(
                made, self.centers.weight, rows, inverse, unscale, lengths, step.numbers
            )
            return
        index = self._index(chunk)
        source = self.centers.weight if index is not None else self._weight(chunk)
        launch.project(made, source, index, inverse, unscale, lengths)
        if step is not None:
            step(self.centers.rows_in_weight(chunk), made)

    # -- chunks ----------------------------------------------------------------------------------

    def _chunks(self, size: int) -> Iterator[Chunk]:
        for number, start in enumerate(range(0, self.centers.count, size)):
            yield Chunk(number, start, min(start + size, self.centers.count))

    def _forward_chunks(self) -> Iterator[Chunk]:
        size = self.chunk_classes
        if self.memory is not None and not self.split:  # unit rows of all classes at once
            tiles = max(_PARTIAL_BYTES // (4 * len(self.rows.vectors)), 1)
            size = max(tiles * self.tile.classes // size, 1) * size
        return self._chunks(size)

    def _halves(self, chunk: Chunk, ready: bool) -> Halves:
        """Unit rows of a chunk; made unless they are ready."""
        halves = self._place(chunk)
        if not ready:
            index = self._index(chunk)
            source = self.centers.weight if index is not None else self._weight(chunk)
            launch.unit_rows(source, index, halves, self.inverse[chunk.start : chunk.stop])
        return halves

    def _place(self, chunk: Chunk) -> Halves:
        """Where the unit rows of a chunk are.

        In the memory of the gradient a chunk's rows lie where its gradient, which is made when they
        have been read, does not reach those of later chunks: float16 rows fill the second half, and
        rows of two parts the place of the chunk itself.
        """
        n = chunk.stop - chunk.start
        if self.memory is None:
            if self._scratch is None:
                largest = min(self.chunk_classes, self.centers.count)
                self._scratch = _empty_halves(largest, self.rows.vectors, self.split)
            return self._scratch.part(slice(n))
        if self._kept is not None:
            return Halves(self._kept[chunk.start : chunk.stop])
        here = self.memory[chunk.start : chunk.stop].view(-1).view(torch.float16)
        return Halves(*here.view(2, n, -1).unbind())

    def _index(self, chunk: Chunk) -> Tensor | None:
        index = self.centers.index
        return None if index is None else index[chunk.start : chunk.stop]

    def _weight(self, chunk: Chunk) -> Tensor:
        return self.centers.weight[chunk.start : chunk.stop]


_LN2 = 0.6931471805599453


def reduce_products(vectors: Tensor, inputs: PassInputs) -> None:
    """The reduction over the products of vectors with all other centers, without gradients."""
    assert inputs.labels is not None
    lengths = {"row_lengths": True, "center_lengths": not inputs.centers.normalized}
    rows = prepare_rows(vectors.float(), inputs.labels, inputs.centers, **lengths)
    KernelPass(inputs, Logits(1.0, PLAIN, False, above=None, **lengths), rows, None).reduce()


def _empty_halves(rows: int, like: Tensor, split: bool, width: int | None = None) -> Halves:
    shape = (2 if split else 1, rows, like.shape[1] if width is None else width)
    parts = torch.empty(shape, dtype=torch.float16, device=like.device)
    return Halves(*parts.unbind())


def _add_products(total: Tensor | None, p: Halves, w: Halves) -> Tensor:
    """total + p w, of halves or of both parts of each."""
    total = launch.product(p.hi, w.hi) if total is None else launch.add_product(total, p.hi, w.hi)
    if p.split:
        launch.add_product(total, p.lo, w.hi)
        launch.add_product(total, p.hi, w.lo)
    return total
