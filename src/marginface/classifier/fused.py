"""Sums over all other classes and their gradients without a matrix of all logits.

Forward goes once over the classes in chunks that stay in the cache: product, mask, exponential, row
sums. Backward goes over them again: weights, two products, the projection that normalizing the
centers asks for. Where the batch is not wider than an embedding the similarities wait for it in the
memory of the gradient of the centers, chunk by chunk, so nothing is computed twice; otherwise they
are computed again. Either way the largest thing made is that gradient; and not even that where the
optimizer takes each part of it as soon as it is there.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from marginface.classifier.center_chunks import CenterChunks
from marginface.classifier.chunked_pass import ChunkedPass, PassInputs
from marginface.utils.distributed import sum_for_own_rows

if TYPE_CHECKING:
    from marginface.classifier.kernels.kernel_pass import KernelPass


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
        buffer = _buffer_for(ctx, weight, inputs)
        the_pass = _pass_over(inputs, queries.detach(), weight, buffer)
        the_pass.reduce()
        _keep(ctx, queries, weight, inputs, the_pass, buffer)
        assert inputs.target is not None
        # Copies: autograd must not tie the graph to what belongs to the inputs.
        return inputs.target.clone(), inputs.reduction.value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return *_gradients(ctx, *upstream), None


def mean_cross_entropy(
    embeddings: Tensor,
    weight: Tensor,
    target: Tensor,
    slope: Tensor | None,
    inputs: PassInputs,
) -> Tensor:
    """The mean of softplus(logsumexp of other classes - scale target), all of it in kernels.

    What `target_and_negatives`, a curve and cross-entropy make, in fewer operations: on small
    batches the host is what takes the time.

    Args:
        embeddings: (R, D) what the rows of `inputs.in_kernels` were made of.
        target: (R,) unscaled target logits, without a gradient.
        slope: (R,) their derivative by the own cosine; None: 1.
        inputs: with kernels, on one process.
    """
    result: Tensor = _MeanCrossEntropy.apply(embeddings, weight, target, slope, inputs)
    return result


class _MeanCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        embeddings: Tensor,
        weight: Tensor,
        target: Tensor,
        slope: Tensor | None,
        inputs: PassInputs,
    ) -> Tensor:
        from marginface.classifier.kernels import launch
        from marginface.classifier.kernels.kernel_pass import KernelPass

        assert inputs.in_kernels is not None
        buffer = _buffer_for(ctx, weight, inputs)
        the_pass = KernelPass(inputs, *inputs.in_kernels, buffer)
        logits, rows = inputs.in_kernels
        slope = rows.own_slope if slope is None else slope  # of cosines: ones
        inputs.reduction.value, losses, *ctx.upstream = launch.cross_entropy(
            the_pass.partial_sums(), target, slope, logits.scale
        )
        _keep(ctx, embeddings, weight, inputs, the_pass, buffer)
        return losses.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        of_others, of_own = ctx.upstream
        of_embeddings, of_weight, _ = _gradients(ctx, of_own, of_others, upstream[0])
        return of_embeddings, of_weight, None, None, None


def _buffer_for(ctx: Any, weight: Tensor, inputs: PassInputs) -> Tensor | None:
    """Memory of the gradient of the centers, where one will be returned."""
    returned = ctx.needs_input_grad[1] and inputs.begin_step is None
    return _empty_gradient(weight, inputs.centers) if returned else None


def _keep(
    ctx: Any,
    queries: Tensor,
    weight: Tensor,
    inputs: PassInputs,
    the_pass: "ChunkedPass | KernelPass",
    buffer: Tensor | None,
) -> None:
    """Hold what the backward pass needs, when there will be one."""
    if any(ctx.needs_input_grad):
        ctx.save_for_backward(queries, weight)  # so that a change in between is noticed
        ctx.inputs, ctx.the_pass, ctx.buffer = inputs, the_pass, buffer


def _gradients(
    ctx: Any, of_own: Tensor, of_others: Tensor, *of_mean: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of what was compared, of the centers and of the threshold."""
    _, weight = ctx.saved_tensors
    inputs, buffer = ctx.inputs, ctx.buffer
    step = None
    if ctx.needs_input_grad[1] and inputs.begin_step is not None:
        step = inputs.begin_step()
    elif ctx.needs_input_grad[1] and buffer is None:  # differentiated before
        buffer = _empty_gradient(weight, inputs.centers)
    ctx.buffer = None  # what autograd is given must not be held here, or it would be copied
    with torch.autocast(weight.device.type, enabled=False):  # backward may be called inside of one
        of_queries, of_logits = ctx.the_pass.gradients(of_own, of_others, buffer, step, *of_mean)
    of_weight = None if buffer is None else _as_gradient_of(weight, inputs.centers, buffer)
    of_threshold = None
    if of_logits is not None and ctx.needs_input_grad[2]:
        of_threshold = inputs.centers.sum_over_shards(-of_logits)
    if not ctx.needs_input_grad[0]:
        return None, of_weight, of_threshold
    if inputs.centers.shard is not None:
        of_queries = sum_for_own_rows(
            of_queries, inputs.rows_of_ranks, inputs.centers.options.communication_precision
        )
    return of_queries, of_weight, of_threshold


def _pass_over(
    inputs: PassInputs, queries: Tensor, weight: Tensor, buffer: Tensor | None
) -> "ChunkedPass | KernelPass":
    """What goes over the classes, with the memory of the gradient to keep things in."""
    if inputs.in_kernels is not None:
        from marginface.classifier.kernels.kernel_pass import KernelPass  # Triton is not everywhere

        return KernelPass(inputs, *inputs.in_kernels, buffer)
    fits = len(queries) <= weight.shape[1] and weight.dtype == queries.dtype
    return ChunkedPass(inputs, queries, buffer if fits else None)


def _empty_gradient(weight: Tensor, centers: CenterChunks) -> Tensor:
    return weight.new_empty(centers.count * centers.per_class, weight.shape[1])


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
