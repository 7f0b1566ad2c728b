"""Partial FC: the classes a step compares with (arXiv 2203.15565)."""

import torch
from torch import Tensor


def sample_classes(
    positives: Tensor, num_classes: int, rate: float, seed: int, step: int
) -> Tensor:
    """Sorted ids of the classes in `positives` and of random others, `rate` of all together.

    The same for every process and number of processes: drawn from (seed, step) over all classes.
    All positives are kept, and at least one other class.
    """
    chosen = torch.zeros(num_classes, dtype=torch.bool)
    chosen[positives.cpu()] = True
    known = int(chosen.sum())
    missing = min(max(round(rate * num_classes), known + 1), num_classes) - known
    if missing > 0:
        generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
        order = torch.randperm(num_classes, generator=generator)
        others = order[~chosen[order]][:missing]
        chosen[others] = True
    return chosen.nonzero().squeeze(1).to(positives.device)
