"""All communication between processes but that of torchmetrics; the rest works on what is here.

Every function also works without a process group, as a world of one.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Whether several processes run."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if is_distributed() else 0


def mean_over_ranks(values: Tensor) -> Tensor:
    """Elementwise mean over all processes, the same on each."""
    if not is_distributed():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def sum_over_ranks(value: float, device: torch.device) -> float:
    """Sum of a number over all processes, the same on each."""
    mean = mean_over_ranks(torch.tensor(float(value), device=device))
    return float(mean) * (dist.get_world_size() if is_distributed() else 1)


def gather_rows(rows: Tensor) -> Tensor:
    """(N, ...) rows of every process to (world x N, ...), in rank order; N is the same on all."""
    if not is_distributed():
        return rows
    parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def gather_rows_of_any_number(rows: Tensor) -> Tensor:
    """(N_r, ...) rows of every process r, one below the other in rank order."""
    if not is_distributed():
        return rows
    counts = gather_rows(torch.tensor([len(rows)], device=rows.device)).tolist()
    most = max(counts)
    filled = torch.cat([rows, rows.new_zeros((most - len(rows), *rows.shape[1:]))])
    parts = gather_rows(filled).split(most) if most else ()
    return torch.cat([rows[:0], *(part[:n] for part, n in zip(parts, counts, strict=False))])
