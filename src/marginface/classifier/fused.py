"""Sums over all other classes and their gradients without a matrix of all logits.

Forward goes once over the classes in chunks that stay in the cache: product, mask, exponential, row
sums. Backward goes over them again: weights, two products, the projection that normalising the
centres asks for. Where the batch is not wider than an embedding the similarities wait for it in the
memory of the gradient of the centres, chunk by chunk, so nothing is computed twice; otherwise they
are computed again. Either way the largest thing made is that gradient; and not even that where the
optimizer takes each part of it as soon as it is there.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from marginface.classifier.center_chunks import Centres, inverse_length
from marginface.classifier.chunked_pass import Plan, StepRows, Walk
from marginface.utils.distributed import sum_for_own_rows


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


class _OtherClasses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, weight: Tensor, threshold: Tensor | None, plan: Plan
    ) -> tuple[Tensor, Tensor]:
        needs_gradient = any(ctx.needs_input_grad)
        returns_gradient = ctx.needs_input_grad[1] and plan.begin_step is None
        buffer = _empty_gradient(weight, plan.centres) if returns_gradient else None
        fits = len(queries) <= weight.shape[1] and weight.dtype == queries.dtype
        walk = Walk(plan, queries.detach(), buffer if fits else None)
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
        step = None
        if ctx.needs_input_grad[1] and plan.begin_step is not None:
            step = plan.begin_step()
        elif ctx.needs_input_grad[1] and buffer is None:  # differentiated before
            buffer = _empty_gradient(weight, plan.centres)
        ctx.buffer = None  # what autograd is given must not be held here, or it would be copied
        own = _gradients_of_own(plan, queries.detach(), own_gradient)
        transform = plan.transform
        with transform.state() if transform is not None else nullcontext():
            of_queries = _walk_back(walk, queries.detach(), sum_gradient, own, buffer, step)
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
    walk: Walk,
    queries: Tensor,
    upstream: Tensor,
    own: _OwnGradients,
    buffer: Tensor | None,
    step: StepRows | None,
) -> Tensor:
    """The gradient of the queries; that of the centres into buffer or to step, rounded once."""
    centres = walk.plan.centres
    k = centres.per_class
    of_queries = own.of_queries
    wanted = buffer is not None or step is not None
    walk.mass.zero_()
    ends = torch.tensor([0, *(k * chunk.stop for chunk in walk.chunks)], device=queries.device)
    bounds = torch.searchsorted(own.at, ends).tolist()
    in_place = buffer is not None and buffer.dtype == queries.dtype
    # Chunks are made in the same memory again and again, where it is not that of the gradient.
    largest = 0 if in_place or not wanted else min(centres.chunk_classes, centres.count)
    room = queries.new_empty(largest * k, queries.shape[1])
    for chunk in walk.chunks:
        similarities = walk.similarities(chunk, again=True)
        weights = walk.gradient(chunk, similarities, upstream)
        rows = centres.rows(chunk)
        inverse = centres.inverse_lengths(chunk, rows)
        along = None
        if inverse is not None:
            weights.mul_(inverse[:, None])
            if wanted:  # the part along the centre, (dL/dw . w) / |w|^2
                along = torch.mul(weights, similarities).sum(1).mul_(inverse)
        of_queries += centres.product(weights.T, rows)
        if not wanted:
            continue
        part = None if buffer is None else buffer[chunk.start * k : chunk.stop * k]
        made = centres.product(weights, queries, out=part if in_place else room[: len(rows)])
        if along is not None:
            made.addcmul_(rows, along[:, None], value=-1)
        here = slice(bounds[chunk.number], bounds[chunk.number + 1])
        made.index_add_(0, own.at[here] - chunk.start * k, own.of_rows[here])
        if step is not None:  # nothing reads these centres again
            step(centres.rows_in_weight(chunk), made.to(centres.weight.dtype))
        elif part is not None and not in_place:
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
