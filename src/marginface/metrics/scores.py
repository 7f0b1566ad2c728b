"""Pair scores sorted by kind, from which all error rates follow."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from marginface.utils.errors import InputError, NotFiniteError


class ScoredPairs(NamedTuple):
    """Scores of both kinds of pairs, each in ascending order and not empty."""

    genuine: Tensor
    impostor: Tensor


def sort_scores(scores: Tensor, same: Tensor) -> ScoredPairs:
    """Scores by kind of pair, sorted.

    Args:
        scores: (N,) similarities, finite.
        same: (N,) whether a pair is genuine; both kinds must occur.

    Raises:
        InputError: lengths differ, a score is not finite, or one kind is missing.
    """
    scores, same = checked_pairs(scores, same)
    return ScoredPairs(ascending(scores[same]), ascending(scores[~same]))


def checked_pairs(scores: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Flat scores and labels on one device; InputError as `sort_scores` says."""
    scores = torch.as_tensor(scores).detach().flatten()
    same = torch.as_tensor(same).flatten().to(scores.device, torch.bool)
    if not scores.is_floating_point():
        scores = scores.double()
    if scores.shape != same.shape:
        raise InputError(f"{len(scores)} scores for {len(same)} labels; they must be equally many")
    check_finite(scores, "scores")
    if not len(same) or same.all() or not same.any():
        kind = "impostor" if len(same) and same.all() else "genuine"
        raise InputError(f"there is no {kind} pair among {len(same)}; rates need both kinds")
    return scores, same


def ascending(values: Tensor) -> Tensor:
    """Sorted values; NumPy's sort is three times as fast as torch's on a CPU."""
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(np.sort(values.numpy()))
    return values.sort().values


def check_finite(values: Tensor, what: str) -> None:
    """NotFiniteError when some rows (or single values) are NaN or infinite."""
    if not values.numel() or bool(torch.isfinite(torch.stack(values.aminmax())).all()):
        return  # without a mask of the size of the values
    finite = torch.isfinite(values)
    bad = int((~(finite if values.ndim == 1 else finite.flatten(1).all(1))).sum())
    if bad:
        raise NotFiniteError(f"{bad} of {len(values)} {what} are NaN or infinite")


def checked_rate(rate: float) -> float:
    """InputError for a rate outside [0, 1]."""
    if not 0 <= float(rate) <= 1:
        raise InputError(f"a rate must be in [0, 1], got {rate}")
    return float(rate)


def count_at_least(values: Tensor, threshold: Tensor) -> int:
    """How many of the ascending values are >= threshold."""
    return len(values) - int(torch.searchsorted(values, threshold, right=False))


def count_above(values: Tensor, threshold: Tensor) -> int:
    """How many of the ascending values are > threshold."""
    return len(values) - int(torch.searchsorted(values, threshold, right=True))
