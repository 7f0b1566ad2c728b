"""A batch against the class centers, chunk by chunk: similarities, logits, gradient weights."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from marginface.classifier.center_chunks import CenterChunks, Chunk
from marginface.classifier.center_step import CenterStep
from marginface.classifier.kernel_inputs import BatchRows, Logits
from marginface.classifier.own_places import OwnPlaces
from marginface.classifier.reduction import MASKED, Reduction

Elementwise = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class NegativeTransform:
    """What replaces the cosines of other classes: (n, R) cosines to unscaled logits, and back."""

    value: Elementwise
    slope: Elementwise | None  # None: 1
    scale: float
    state: Callable[[], AbstractContextManager[None]] = nullcontext  # the state it was made with


@dataclass(frozen=True)
class PassInputs:
    """One batch against the centers.

    Args:
        centers: what is compared with.
        reduction: what is kept of it.
        labels: (R,) own classes, left out of the sum; None: nothing is left out.
        own: (R, K) product of each row with its own centers, 0 where another process has them.
        target: (R,) the largest of them, over all processes.
        transform: of cosines, for heads that change negatives; None: similarities are logits.
        filtering_thresholds: (R,), or one for all: similarities above which others count as 0.
        rows_of_ranks: how many of the R rows each process that has a shard brought.
        in_kernels: the same batch for the GPU kernels, which then compute; None: plain torch.
        begin_step: begins an optimizer step of the centers that the backward pass takes itself,
            instead of returning their gradient; called once for each.
    """

    centers: CenterChunks
    reduction: Reduction
    labels: Tensor | None
    own: Tensor | None = None
    target: Tensor | None = None
    transform: NegativeTransform | None = None
    filtering_thresholds: Tensor | float | None = None
    rows_of_ranks: tuple[int, ...] = ()
    in_kernels: tuple[Logits, BatchRows] | None = None
    begin_step: Callable[[], CenterStep] | None = None


class ChunkedPass:
    """Goes over the classes; saves similarities in `saved_similarities` when that is given."""

    def __init__(
        self, inputs: PassInputs, queries: Tensor, saved_similarities: Tensor | None = None
    ) -> None:
        self.inputs, self.queries, self.saved_similarities = inputs, queries, saved_similarities
        centers = inputs.centers
        self.chunks = list(centers.chunks())
        self._scratch: dict[tuple[int, int], Tensor] = {}
        self._own = (
            None if inputs.labels is None else OwnPlaces(centers, self.chunks, inputs.labels)
        )

    def reduce(self) -> None:
        """All passes that the reduction wants."""
        reduction, queries = self.inputs.reduction, self.queries
        reduction.begin(len(queries), queries.dtype, queries.device)
        first = True
        while True:
            for chunk in self.chunks:
                values = self.similarities(chunk, reuse=not first)
                logits = self.logits(chunk, values)
                reduction.update(logits, self.scratch(1, logits))
            if not reduction.finish():
                return
            first = False

    def gradients(
        self,
        own_upstream: Tensor,
        upstream: Tensor,
        buffer: Tensor | None,
        step: CenterStep | None,
    ) -> tuple[Tensor, Tensor | None]:
        """The gradient of the queries and, for a threshold, the sum of those of all other logits.

        The gradient of the centers goes into buffer or to step, rounded once.
        """
        transform = self.inputs.transform
        with transform.state() if transform is not None else nullcontext():
            found = self._gradients(own_upstream, upstream, buffer, step)
        self.saved_similarities = None  # now overwritten by the gradient
        self._scratch.clear()  # the loss may live on
        return found

    def _gradients(
        self,
        own_upstream: Tensor,
        upstream: Tensor,
        buffer: Tensor | None,
        step: CenterStep | None,
    ) -> tuple[Tensor, Tensor | None]:
        inputs, queries = self.inputs, self.queries
        centers, k = inputs.centers, inputs.centers.per_class
        assert inputs.own is not None
        own_gradients = _of_nearest_own(inputs.own, own_upstream)
        scale = self._scale_for_float16(own_gradients, upstream)
        if scale is not None:
            own_gradients, upstream = own_gradients * scale, upstream * scale
        of_queries = torch.zeros_like(queries) if not self.chunks else None
        of_logits = queries.new_zeros(()) if inputs.reduction.has_threshold else None
        wanted = buffer is not None or step is not None
        in_place = buffer is not None and buffer.dtype == queries.dtype
        # Chunks are made in the same memory again and again, where it is not that of the gradient.
        largest = 0 if in_place or not wanted else min(centers.chunk_classes, centers.count)
        room = queries.new_empty(largest * k, queries.shape[1]) if largest else None
        for chunk in self.chunks:
            similarities = self.similarities(chunk, reuse=True)
            weights = self.gradient(chunk, similarities, upstream)
            if of_logits is not None:
                of_logits += weights.sum()
            weights = self.through_transform(similarities, weights)
            self.set_own(chunk, weights, own_gradients)
            rows = centers.rows(chunk)
            inverse = centers.inverse_lengths(chunk, rows)
            along = None
            if inverse is not None:
                weights.mul_(inverse[:, None])
                if wanted:  # the part along the center, (dL/dw . w) / |w|^2
                    self.set_own(chunk, similarities, inputs.own)
                    along = torch.mul(weights, similarities).sum(1).mul_(inverse)
            part_of_queries = centers.product(weights.T, rows)
            of_queries = part_of_queries if of_queries is None else of_queries.add_(part_of_queries)
            if not wanted:
                continue
            part = None if buffer is None else buffer[chunk.start * k : chunk.stop * k]
            out = part if in_place or room is None else room[: len(rows)]
            made = centers.product(weights, queries, out=out)
            if along is not None:
                made.addcmul_(rows, along[:, None], value=-1)
            if scale is not None:
                made.div_(scale)
            if step is not None:  # nothing reads these centers again
                step(centers.rows_in_weight(chunk), made.to(centers.weight.dtype))
            elif part is not None and not in_place:
                part.copy_(made)
        assert of_queries is not None
        if scale is not None:
            of_queries.div_(scale)
            of_logits = None if of_logits is None else of_logits.div_(scale)
        return of_queries, of_logits

    def _scale_for_float16(self, *gradients: Tensor) -> Tensor | None:
        """() power of two that brings gradients into the range of float16 products."""
        if self.inputs.centers.options.product_precision != "float16":
            return None
        largest = torch.stack([g.abs().max() for g in gradients]).max()
        # Up to 2^8, as they are divided by the lengths of centers before they are rounded.
        return torch.where(largest > 0, torch.exp2(8 - largest.log2().ceil().clamp(-90, 90)), 1.0)

    def similarities(self, chunk: Chunk, reuse: bool) -> Tensor:
        """(n K, R) similarities, MASKED for the own classes; read back where they were kept."""
        centers, rows_of_batch = self.inputs.centers, len(self.queries)
        n, k = chunk.stop - chunk.start, centers.per_class
        if self.saved_similarities is None:
            out = self.scratch(0, n * k)
        else:  # in the memory of this chunk's part of the gradient
            start = chunk.start * k * self.saved_similarities.shape[1]
            out = self.saved_similarities.view(-1)[start : start + n * k * rows_of_batch].view(
                n * k, -1
            )
            if reuse:
                return out
        rows = centers.rows(chunk)
        centers.product(rows, self.queries.T, out=out)
        inverse = centers.inverse_lengths(chunk, rows)
        if inverse is not None:
            out.mul_(inverse[:, None])
        self._leave_out(chunk, out.view(n, k, -1))
        return out

    def logits(self, chunk: Chunk, similarities: Tensor) -> Tensor:
        """(n, R) logits; MASKED for the own classes."""
        values = self._nearest(similarities)
        inputs = self.inputs
        if inputs.filtering_thresholds is not None:
            values = values.masked_fill(values > inputs.filtering_thresholds, 0.0)
        if inputs.transform is not None:
            values = inputs.transform.value(values.clamp(-1.0, 1.0)).mul_(inputs.transform.scale)
            self._leave_out(chunk, values[:, None])
        return values

    def gradient(self, chunk: Chunk, similarities: Tensor, upstream: Tensor) -> Tensor:
        """(n, R) what reaches the logits from (R,) gradients of the reduction."""
        logits = self.logits(chunk, similarities)
        return self.inputs.reduction.weights(logits, self.scratch(1, logits)).mul_(upstream)

    def through_transform(self, similarities: Tensor, weights: Tensor) -> Tensor:
        """(n, R) gradients of logits to (n K, R) of similarities."""
        inputs, k = self.inputs, self.inputs.centers.per_class
        nearest = self._nearest(similarities)
        if inputs.transform is not None:
            weights.mul_(inputs.transform.scale)
            if inputs.transform.slope is not None:
                weights.mul_(inputs.transform.slope(nearest.clamp(-1.0, 1.0)))
        if inputs.filtering_thresholds is not None:
            weights.masked_fill_(nearest > inputs.filtering_thresholds, 0.0)
        if k == 1:
            return weights
        n = len(weights)
        chosen = similarities.view(n, k, -1) == nearest[:, None]  # equal ones share the gradient
        shares = chosen / chosen.sum(1, keepdim=True)
        return (shares.to(weights.dtype) * weights[:, None]).view(n * k, -1)

    def set_own(self, chunk: Chunk, matrix: Tensor, values: Tensor) -> None:
        """Put (R, K) values of the own classes where the (n K, R) matrix has them."""
        assert self._own is not None
        n, k = chunk.stop - chunk.start, self.inputs.centers.per_class
        self._own.put(chunk, matrix.view(n, k, -1), values)

    def scratch(self, number: int, like: Tensor | int) -> Tensor:
        """(n, R) memory that is used again for every chunk."""
        n = like if isinstance(like, int) else len(like)
        if (number, n) not in self._scratch:
            self._scratch[number, n] = self.queries.new_empty(n, len(self.queries))
        return self._scratch[number, n]

    def _nearest(self, similarities: Tensor) -> Tensor:
        k = self.inputs.centers.per_class
        return similarities if k == 1 else similarities.view(-1, k, len(self.queries)).amax(1)

    def _leave_out(self, chunk: Chunk, values: Tensor) -> None:
        if self._own is not None:
            self._own.put(chunk, values, MASKED)


def reduce_classes(queries: Tensor, inputs: PassInputs) -> Reduction:
    """The reduction alone, without gradients."""
    ChunkedPass(inputs, queries).reduce()
    return inputs.reduction


def _of_nearest_own(own: Tensor, upstream: Tensor) -> Tensor:
    """(R,) gradients of the largest of (R, K) similarities to these; equal ones share it."""
    if own.shape[1] == 1:
        return upstream[:, None]
    chosen = (own == own.amax(1, keepdim=True)).to(upstream.dtype)
    return upstream[:, None] * chosen / chosen.sum(1, keepdim=True)
