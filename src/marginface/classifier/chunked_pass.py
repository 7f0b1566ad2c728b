"""One batch against the class centres, chunk by chunk: what is compared, and the weights of it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from marginface.classifier.center_chunks import Centres, Chunk
from marginface.classifier.reduction import NEVER, Reduction

Elementwise = Callable[[Tensor], Tensor]
StepRows = Callable[[slice | Tensor, Tensor], None]  # rows of the centres, (n, D) their gradient


@dataclass(frozen=True)
class Transform:
    """What replaces the cosines of other classes: (n, R) cosines to unscaled logits, and back."""

    value: Elementwise
    slope: Elementwise | None  # None: 1
    scale: float
    state: Callable[[], AbstractContextManager[None]] = nullcontext  # the state it was made with


@dataclass(frozen=True)
class Plan:
    """One batch against the centres.

    Args:
        centres: what is compared with.
        reduction: what is kept of it.
        labels: (R,) own classes, left out of the sum; None: nothing is left out.
        target: (R,) value that is passed on for the own classes, see `other_classes`.
        transform: of cosines, for heads that change negatives; None: similarities are logits.
        filtered_above: (R,) similarities above which other classes count as 0.
        rows_of_ranks: how many of the R rows each process that has a shard brought.
        begin_step: begins an optimizer step of the centres that the backward pass takes itself,
            instead of returning their gradient; called once for each.
    """

    centres: Centres
    reduction: Reduction
    labels: Tensor | None
    target: Tensor | None = None
    transform: Transform | None = None
    filtered_above: Tensor | None = None
    rows_of_ranks: tuple[int, ...] = ()
    begin_step: Callable[[], StepRows] | None = None


class Walk:
    """Goes over the classes; keeps similarities in `kept` when that is given."""

    def __init__(self, plan: Plan, queries: Tensor, kept: Tensor | None = None) -> None:
        self.plan, self.queries, self.kept = plan, queries, kept
        centres = plan.centres
        self.chunks = list(centres.chunks())
        self.mass = queries.new_zeros(())  # of all gradients of logits so far
        self._scratch: dict[tuple[int, int], Tensor] = {}
        if plan.labels is not None:
            self.positions, self.order = centres.positions(plan.labels).sort()
            ends = [0, *(chunk.stop for chunk in self.chunks)]
            edges = torch.tensor(ends, device=queries.device)
            self._bounds = torch.searchsorted(self.positions, edges).tolist()

    def reduce(self) -> None:
        """All passes that the reduction wants."""
        reduction, queries = self.plan.reduction, self.queries
        reduction.begin(len(queries), queries.dtype, queries.device)
        first = True
        while True:
            for chunk in self.chunks:
                values = self.similarities(chunk, again=not first)
                logits = self.logits(chunk, values)
                reduction.update(logits, self.scratch(1, logits))
            if not reduction.finish():
                return
            first = False

    def similarities(self, chunk: Chunk, again: bool) -> Tensor:
        """(n K, R) similarities, NEVER for the own classes; read back where they were kept."""
        centres, rows_of_batch = self.plan.centres, len(self.queries)
        n, k = chunk.stop - chunk.start, centres.per_class
        if self.kept is None:
            out = self.scratch(0, n * k)
        else:  # in the memory of this chunk's part of the gradient
            start = chunk.start * k * self.kept.shape[1]
            out = self.kept.view(-1)[start : start + n * k * rows_of_batch].view(n * k, -1)
            if again:
                return out
        rows = centres.rows(chunk)
        centres.product(rows, self.queries.T, out=out)
        inverse = centres.inverse_lengths(chunk, rows)
        if inverse is not None:
            out.mul_(inverse[:, None])
        self._leave_out(chunk, out.view(n, k, -1))
        return out

    def logits(self, chunk: Chunk, similarities: Tensor) -> Tensor:
        """(n, R) logits; NEVER for the own classes."""
        values = self._nearest(similarities)
        plan = self.plan
        if plan.filtered_above is not None:
            values = values.masked_fill(values > plan.filtered_above, 0.0)
        if plan.transform is not None:
            values = plan.transform.value(values.clamp(-1.0, 1.0)).mul_(plan.transform.scale)
            self._leave_out(chunk, values[:, None])
        return values

    def gradient(self, chunk: Chunk, similarities: Tensor, upstream: Tensor) -> Tensor:
        """(n K, R) what reaches the similarities from (R,) gradients of the reduction."""
        plan, k = self.plan, self.plan.centres.per_class
        logits = self.logits(chunk, similarities)
        weights = plan.reduction.weights(logits, self.scratch(1, logits)).mul_(upstream)
        self.mass += weights.sum()
        nearest = self._nearest(similarities)
        if plan.transform is not None:
            weights.mul_(plan.transform.scale)
            if plan.transform.slope is not None:
                weights.mul_(plan.transform.slope(nearest.clamp(-1.0, 1.0)))
        if plan.filtered_above is not None:
            weights.masked_fill_(nearest > plan.filtered_above, 0.0)
        if k == 1:
            return weights
        n = chunk.stop - chunk.start
        chosen = similarities.view(n, k, -1) == nearest[:, None]  # equal ones share the gradient
        shares = chosen / chosen.sum(1, keepdim=True)
        return (shares.to(weights.dtype) * weights[:, None]).view(n * k, -1)

    def scratch(self, number: int, like: Tensor | int) -> Tensor:
        """(n, R) memory that is used again for every chunk."""
        n = like if isinstance(like, int) else len(like)
        if (number, n) not in self._scratch:
            self._scratch[number, n] = self.queries.new_empty(n, len(self.queries))
        return self._scratch[number, n]

    def forget_scratch(self) -> None:
        """Give the memory back while the loss lives on."""
        self._scratch.clear()

    def _nearest(self, similarities: Tensor) -> Tensor:
        k = self.plan.centres.per_class
        return similarities if k == 1 else similarities.view(-1, k, len(self.queries)).amax(1)

    def _leave_out(self, chunk: Chunk, values: Tensor) -> None:
        if self.plan.labels is None:
            return
        low, high = self._bounds[chunk.number], self._bounds[chunk.number + 1]
        if low < high:
            values[self.positions[low:high] - chunk.start, :, self.order[low:high]] = NEVER


def reduce_classes(queries: Tensor, plan: Plan) -> Reduction:
    """The reduction alone, without gradients."""
    Walk(plan, queries).reduce()
    return plan.reduction
