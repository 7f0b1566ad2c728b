"""Sums over all other classes and their gradients without a matrix of all logits.

Forward goes once over the classes in chunks that stay in the cache: product, mask, exponential, row
sums. Backward goes over them again: weights, two products, the projection that normalizing the
centers asks for. Where the batch is not wider than an embedding the similarities wait for it in the
memory of the gradient of the centers, chunk by chunk, so nothing is computed twice; otherwise they
are computed again. Either way the largest thing made is that gradient; and not even that where the
optimizer takes each part of it as soon as it is there.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from marginface.classifier.center_chunks import CenterChunks
from marginface.classifier.chunked_pass import ChunkedPass, PassInputs, StepCenterRows
from marginface.utils.distributed import sum_for_own_rows


def target_and_negatives(
    queries: Tensor, weight: Tensor, threshold: Tensor | None, inputs: PassInputs
) -> Any:
    """The similarity to the own class and the reduction over the others, with gradients.

    Args:
        queries: (R, D) directions of embeddings, scaled unless `inputs` transforms.
        weight: (rows of this process, D) the centers that `inputs` reads.
        threshold: () of the reduction, when it has one that is learned.

    Returns:
        (R,) query times own center, (R,) value of the reduction.
    """
    return _TargetAndNegatives.apply(queries, weight, threshold, inputs)


class _TargetAndNegatives(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, weight: Tensor, threshold: Tensor | None, inputs: PassInputs
    ) -> tuple[Tensor, Tensor]:
        needs_gradient = any(ctx.needs_input_grad)
        returns_gradient = ctx.needs_input_grad[1] and inputs.begin_step is None
        buffer = _empty_gradient(weight, inputs.centers) if returns_gradient else None
        fits = len(queries) <= weight.shape[1] and weight.dtype == queries.dtype
        chunked_pass = ChunkedPass(inputs, queries.detach(), buffer if fits else None)
        chunked_pass.reduce()
        if needs_gradient:
            ctx.save_for_backward(queries, weight)
            ctx.inputs, ctx.chunked_pass, ctx.buffer = inputs, chunked_pass, buffer
        assert inputs.target is not None
        # Copies: autograd must not tie the graph to what belongs to the inputs.
        return inputs.target.clone(), inputs.reduction.value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(upstream[0].device.type, enabled=False):
            return _TargetAndNegatives._backward(ctx, *upstream)

    @staticmethod
    def _backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        own_gradient, sum_gradient = upstream
        queries, weight = ctx.saved_tensors
        inputs, chunked_pass, buffer = ctx.inputs, ctx.chunked_pass, ctx.buffer
        step = None
        if ctx.needs_input_grad[1] and inputs.begin_step is not None:
            step = inputs.begin_step()
        elif ctx.needs_input_grad[1] and buffer is None:  # differentiated before
            buffer = _empty_gradient(weight, inputs.centers)
        ctx.buffer = None  # what autograd is given must not be held here, or it would be copied
        transform = inputs.transform
        with transform.state() if transform is not None else nullcontext():
            of_queries, of_logits = _backward_over_chunks(
                chunked_pass, queries.detach(), own_gradient, sum_gradient, buffer, step
            )
        chunked_pass.saved_similarities = None  # now overwritten by the gradient
        chunked_pass.forget_scratch()
        of_threshold = None
        of_weight = None if buffer is None else _as_gradient_of(weight, inputs.centers, buffer)
        if ctx.needs_input_grad[2] and of_logits is not None:
            of_threshold = inputs.centers.sum_over_shards(-of_logits)
        if inputs.centers.shard is not None and ctx.needs_input_grad[0]:
            of_queries = sum_for_own_rows(
                of_queries, inputs.rows_of_ranks, inputs.centers.options.communication_precision
            )
        return (
            of_queries if ctx.needs_input_grad[0] else None,
            of_weight,
            of_threshold,
            None,
        )


def _empty_gradient(weight: Tensor, centers: CenterChunks) -> Tensor:
    return weight.new_empty(centers.count * centers.per_class, weight.shape[1])


def _backward_over_chunks(
    chunked_pass: ChunkedPass,
    queries: Tensor,
    own_upstream: Tensor,
    upstream: Tensor,
    buffer: Tensor | None,
    step: StepCenterRows | None,
) -> tuple[Tensor, Tensor | None]:
    """The gradient of the queries and, for a threshold, the sum of those of all other logits.

    The gradient of the centers goes into buffer or to step, rounded once.
    """
    inputs = chunked_pass.inputs
    centers, k = inputs.centers, inputs.centers.per_class
    assert inputs.own is not None
    own_gradients = _of_nearest_own(inputs.own, own_upstream)
    of_queries = torch.zeros_like(queries) if not chunked_pass.chunks else None
    of_logits = queries.new_zeros(()) if inputs.reduction.has_threshold else None
    wanted = buffer is not None or step is not None
    in_place = buffer is not None and buffer.dtype == queries.dtype
    # Chunks are made in the same memory again and again, where it is not that of the gradient.
    largest = 0 if in_place or not wanted else min(centers.chunk_classes, centers.count)
    room = queries.new_empty(largest * k, queries.shape[1]) if largest else None
    for chunk in chunked_pass.chunks:
        similarities = chunked_pass.similarities(chunk, reuse=True)
        weights = chunked_pass.gradient(chunk, similarities, upstream)
        if of_logits is not None:
            of_logits += weights.sum()
        weights = chunked_pass.through_transform(similarities, weights)
        chunked_pass.set_own(chunk, weights, own_gradients)
        rows = centers.rows(chunk)
        inverse = centers.inverse_lengths(chunk, rows)
        along = None
        if inverse is not None:
            weights.mul_(inverse[:, None])
            if wanted:  # the part along the center, (dL/dw . w) / |w|^2
                chunked_pass.set_own(chunk, similarities, inputs.own)
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
        if step is not None:  # nothing reads these centers again
            step(centers.rows_in_weight(chunk), made.to(centers.weight.dtype))
        elif part is not None and not in_place:
            part.copy_(made)
    assert of_queries is not None
    return of_queries, of_logits


def _of_nearest_own(own: Tensor, upstream: Tensor) -> Tensor:
    """(R,) gradients of the largest of (R, K) similarities to these; equal ones share it."""
    if own.shape[1] == 1:
        return upstream[:, None]
    chosen = (own == own.amax(1, keepdim=True)).to(upstream.dtype)
    return upstream[:, None] * chosen / chosen.sum(1, keepdim=True)


def _as_gradient_of(weight: Tensor, centers: CenterChunks, buffer: Tensor) -> Tensor:
    """The gradient of the compared centers as one of all: sparse, or dense when that is wanted."""
    if centers.index is None:
        return buffer
    rows = centers.weight_rows(centers.index)
    if centers.options.sampling == "dense":
        return torch.zeros_like(weight).index_copy_(0, rows, buffer)
    return torch.sparse_coo_tensor(
        rows[None], buffer, weight.shape, is_coalesced=True, check_invariants=False
    )
