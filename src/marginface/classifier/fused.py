"""Sums over all other classes and their gradients without a matrix of all logits.

Forward goes once over the classes in chunks that stay in the cache: product, mask, exponential, row
sums. Backward goes over them again: weights, two products, the projection that normalising the
centres asks for. Where the batch is not wider than an embedding the similarities wait for it in the
memory of the gradient of the centres, chunk by chunk, so nothing is computed twice; otherwise they
are computed again. Either way the largest thing made is that gradient.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from marginface.classifier.centres import Centres, Chunk, inverse_length
from marginface.classifier.reductions import NEVER, Reduction
from marginface.distributed import sum_for_own_rows

Elementwise = Callable[[Tensor], Tensor]


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
    """

    centres: Centres
    reduction: Reduction
    labels: Tensor | None
    target: Tensor | None = None
    transform: Transform | None = None
    filtered_above: Tensor | None = None
    rows_of_ranks: tuple[int, ...] = ()


def other_classes(queries: Tensor, weight: Tensor, threshold: Tensor | None, plan: Plan) -> Any:
    """The similarity to the own class and the reduction over the others, with gradients.

    Args:
        queries: (R, D) directions of embeddings, scaled unless `plan` transforms.
        weight: (rows of this process, D) the centres that `plan` reads.
        threshold: () of the reduction, when it has one that is learned.

    Returns:
        (R,) query times own centre, (R,) value of the reduction.
    """
    return _OtherClasses.apply(queries, weight, threshold, plan)


def reduce_classes(queries: Tensor, plan: Plan) -> Reduction:
    """The reduction alone, without gradients."""
    _Walk(plan, queries).reduce()
    return plan.reduction


class _Walk:
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


class _OtherClasses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, weight: Tensor, threshold: Tensor | None, plan: Plan
    ) -> tuple[Tensor, Tensor]:
        centres = plan.centres
        needs_gradient = any(ctx.needs_input_grad)
        buffer = _empty_gradient(weight, centres) if ctx.needs_input_grad[1] else None
        fits = len(queries) <= weight.shape[1] and weight.dtype == queries.dtype
        walk = _Walk(plan, queries.detach(), buffer if fits else None)
        walk.reduce()
        if needs_gradient:
            ctx.save_for_backward(queries, weight)
            ctx.plan, ctx.walk, ctx.buffer = plan, walk, buffer
        assert plan.target is not None
        return plan.target.clone(), plan.reduction.value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(upstream[0].device.type, enabled=False):
            return _OtherClasses._backward(ctx, *upstream)

    @staticmethod
    def _backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        own_gradient, sum_gradient = upstream
        queries, weight = ctx.saved_tensors
        plan, walk, buffer = ctx.plan, ctx.walk, ctx.buffer
        if buffer is None and ctx.needs_input_grad[1]:  # differentiated before
            buffer = _empty_gradient(weight, plan.centres)
        ctx.buffer = None  # what autograd is given must not be held here, or it would be copied
        own = _gradients_of_own(plan, queries.detach(), own_gradient)
        transform = plan.transform
        with transform.state() if transform is not None else nullcontext():
            of_queries = _walk_back(walk, queries.detach(), sum_gradient, own, buffer)
        walk.kept = None  # now overwritten by the gradient
        walk.forget_scratch()
        of_threshold = None
        of_weight = None if buffer is None else _as_gradient_of(weight, plan.centres, buffer)
        if ctx.needs_input_grad[2]:
            of_threshold = plan.centres.add(-walk.mass)
        if plan.centres.shard is not None and ctx.needs_input_grad[0]:
            of_queries = sum_for_own_rows(
                of_queries, plan.rows_of_ranks, plan.centres.options.collectives
            )
        return (
            of_queries if ctx.needs_input_grad[0] else None,
            of_weight,
            of_threshold,
            None,
        )


def _empty_gradient(weight: Tensor, centres: Centres) -> Tensor:
    return weight.new_empty(centres.count * centres.per_class, weight.shape[1])


@dataclass(frozen=True)
class _OwnGradients:
    """What comes from query times own centre."""

    of_queries: Tensor  # (R, D)
    at: Tensor  # (r,) rows of the gradient buffer, ascending
    of_rows: Tensor  # (r, D)


def _gradients_of_own(plan: Plan, queries: Tensor, upstream: Tensor) -> _OwnGradients:
    centres = plan.centres
    assert plan.labels is not None
    mine, index, rows = centres.own_rows(plan.labels)
    inverse = inverse_length(rows)[..., None]
    directions = rows * inverse if centres.normalised else rows
    own = torch.einsum("rd,rkd->rk", queries[mine], directions)
    chosen = (own == own.amax(1, keepdim=True)).to(queries.dtype)
    share = upstream[mine, None] * chosen / chosen.sum(1, keepdim=True)
    of_queries = torch.zeros_like(queries)
    of_queries[mine] = torch.einsum("rk,rkd->rd", share, directions)
    of_rows = share[..., None] * queries[mine, None]
    if centres.normalised:
        of_rows = (of_rows - (share * own)[..., None] * directions) * inverse
    if centres.index is not None:
        index = centres.weight_rows(centres.positions(plan.labels[mine]))
    at, order = index.flatten().sort(stable=True)
    return _OwnGradients(of_queries, at, of_rows.flatten(0, 1)[order])


def _walk_back(
    walk: _Walk, queries: Tensor, upstream: Tensor, own: _OwnGradients, buffer: Tensor | None
) -> Tensor:
    """The gradient of the queries; that of the centres into buffer, rounded once if at all."""
    centres = walk.plan.centres
    k = centres.per_class
    of_queries = own.of_queries
    walk.mass.zero_()
    ends = torch.tensor([0, *(k * chunk.stop for chunk in walk.chunks)], device=queries.device)
    bounds = torch.searchsorted(own.at, ends).tolist()
    for chunk in walk.chunks:
        similarities = walk.similarities(chunk, again=True)
        weights = walk.gradient(chunk, similarities, upstream)
        rows = centres.rows(chunk)
        inverse = centres.inverse_lengths(chunk, rows)
        along = None
        if inverse is not None:
            weights.mul_(inverse[:, None])
            if buffer is not None:  # the part along the centre, (dL/dw . w) / |w|^2
                along = torch.mul(weights, similarities).sum(1).mul_(inverse)
        of_queries += centres.product(weights.T, rows)
        if buffer is None:
            continue
        part = buffer[chunk.start * k : chunk.stop * k]
        same = part.dtype == queries.dtype
        made = centres.product(weights, queries, out=part if same else None)
        if along is not None:
            made.addcmul_(rows, along[:, None], value=-1)
        here = slice(bounds[chunk.number], bounds[chunk.number + 1])
        made.index_add_(0, own.at[here] - chunk.start * k, own.of_rows[here])
        if not same:
            part.copy_(made)
    return of_queries


def _as_gradient_of(weight: Tensor, centres: Centres, buffer: Tensor) -> Tensor:
    """The gradient of the compared centres as one of all: sparse, or dense when that is wanted."""
    if centres.index is None:
        return buffer
    rows = centres.weight_rows(centres.index)
    if centres.options.sampling == "dense":
        return torch.zeros_like(weight).index_copy_(0, rows, buffer)
    return torch.sparse_coo_tensor(
        rows[None], buffer, weight.shape, is_coalesced=True, check_invariants=False
    )
