"""All communication between processes but that of torchmetrics; the rest works on what is here.

Every function also works without a process group, as a world of one.
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether several processes run."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if is_distributed() else 1


def mean_over_ranks(values: Tensor) -> Tensor:
    """Elementwise mean over all processes, the same on each."""
    if not is_distributed():
        return values
    return add_over_ranks(values.clone()) / world_size()


def sum_over_ranks(value: float, device: torch.device) -> float:
    """Sum of a number over all processes, the same on each."""
    mean = mean_over_ranks(torch.tensor(float(value), device=device))
    return float(mean) * world_size()


def gather_rows(rows: Tensor) -> Tensor:
    """(N, ...) rows of every process to (world x N, ...), in rank order; N is the same on all."""
    if not is_distributed():
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def rows_of_ranks(number: int, device: torch.device) -> list[int]:
    """How many rows each process has, in rank order."""
    return gather_rows(torch.tensor([number], device=device)).tolist()


def rows_unless_equal(number: int, device: torch.device, equal: bool) -> Sequence[int]:
    """The same, without asking where it is known that every process has as many as this one."""
    return (number,) * world_size() if equal else rows_of_ranks(number, device)


def own_slice(counts: Sequence[int]) -> slice:
    """Where the rows of this process are when those of all are stacked."""
    start = sum(counts[: rank()])
    return slice(start, start + counts[rank()])


def gather_rows_of_any_number(rows: Tensor) -> Tensor:
    """(N_r, ...) rows of every process r, one below the other in rank order."""
    if not is_distributed():
        return rows
    return gather_counted_rows(rows, rows_of_ranks(len(rows), rows.device))


def gather_counted_rows(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """The same where it is known how many rows each process has."""
    return _without_filling(gather_rows(_filled(rows, counts)), counts)


def gather_to_first(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """The same on the first process only; the others get no rows."""
    if not is_distributed():
        return rows
    filled = _filled(rows, counts)
    if rank() > 0:
        dist.gather(filled)
        return rows[:0]
    parts = [torch.empty_like(filled) for _ in counts]
    dist.gather(filled, parts)
    return _without_filling(torch.cat(parts), counts)


def _filled(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """As many rows on every process as the one with most has: collectives want equal ones."""
    return torch.cat([rows, rows.new_zeros((max(counts) - len(rows), *rows.shape[1:]))])


def _without_filling(gathered: Tensor, counts: Sequence[int]) -> Tensor:
    most = max(counts)
    return torch.cat([gathered[r * most : r * most + n] for r, n in enumerate(counts)])


def add_over_ranks(values: Tensor) -> Tensor:
    """Elementwise sum over all processes, the same on each; in place."""
    if is_distributed():
        dist.all_reduce(values)
    return values


def largest_over_ranks(values: Tensor) -> Tensor:
    """Elementwise maximum over all processes, the same on each; in place."""
    if is_distributed():
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return values


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Give tensors the values that they have on the first process; in place."""
    if is_distributed():
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def gather_for_shards(rows: Tensor, counts: Sequence[int], precision: str = "float32") -> Tensor:
    """(N_r, D) rows of all processes, below each other; the gradient comes back from all.

    Backward expects what every process computed of the whole gradient for its own rows, and
    multiplies by the number of processes: data-parallel training divides by it again.

    Args:
        counts: N_r of every process.
        precision: "bfloat16" halves what is sent and rounds it to 8 bits.
    """
    gathered: Tensor = _GatherForShards.apply(rows, counts, precision)
    return gathered


class _GatherForShards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: Sequence[int], precision: str) -> Tensor:
        ctx.counts = counts
        sent = rows.bfloat16() if precision == "bfloat16" else rows
        return gather_counted_rows(sent, counts).to(rows.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        here = own_slice(ctx.counts)
        return upstream[0][here] * len(ctx.counts), None, None


def sum_for_own_rows(partial: Tensor, counts: Sequence[int], precision: str = "float32") -> Tensor:
    """(N, D) partial sums of all processes to the sum, right in the rows of this process only."""
    if not is_distributed():
        return partial
    sent = partial.bfloat16() if precision == "bfloat16" else partial
    if len(set(counts)) > 1:
        return add_over_ranks(sent).to(partial.dtype)
    own = sent.new_empty((counts[0], *sent.shape[1:]))
    with warnings.catch_warnings():
        # Its successor is not in the oldest torch that is supported.
        warnings.filterwarnings("ignore", category=FutureWarning)
        dist.reduce_scatter_tensor(own, sent.contiguous())
    result = torch.zeros_like(partial)
    result[own_slice(counts)] = own.to(partial.dtype)
    return result
