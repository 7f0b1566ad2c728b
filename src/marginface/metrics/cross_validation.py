"""Accuracy by cross-validation: a threshold from all folds but one, judged on that one."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from marginface.utils.errors import InputError, unknown_name

# How the threshold that an accuracy is measured at is found:
#   grid       insightface: squared distances 0, 0.01, ... 3.99, on the other folds
#   exact      between any two neighboring distances, on the other folds
#   in_sample  the same, on the very pairs it is judged on: optimistic (official X2-Softmax)
ThresholdRule = Literal["grid", "exact", "in_sample"]
THRESHOLD_RULES = ("grid", "exact", "in_sample")


class Binned(NamedTuple):
    """Pairs by fold, kind and the first threshold that accepts them; all that accuracy needs.

    Attributes:
        thresholds: (K,) ascending squared distances; a pair is accepted below one.
        bins: (N,) the first threshold that accepts a pair, K for none.
        fold: (N,) fold of each pair.
        same: (N,) whether a pair is genuine.
        folds: how many there are.
        in_sample: whether thresholds are chosen on the pairs they are judged on.
    """

    thresholds: Tensor
    bins: Tensor
    fold: Tensor
    same: Tensor
    folds: int
    in_sample: bool


class FoldAccuracy(NamedTuple):
    """(folds,) share of right decisions in each fold, and the thresholds behind them."""

    accuracy: Tensor
    threshold: Tensor


def bin_by_threshold(distance: Tensor, same: Tensor, folds: int, rule: ThresholdRule) -> Binned:
    """Prepare pairs for `fold_accuracy`.

    Args:
        distance: (N,) float64 squared distances in [0, 4], or any other dissimilarity for rules
            without a grid.
        same: (N,) whether a pair is genuine.
        folds: contiguous parts, 2 to N.
        rule: see `ThresholdRule`.

    Raises:
        InputError: another number of folds or another rule.
    """
    check_folds(folds, len(same), rule)
    if rule == "grid":
        thresholds = torch.arange(400, dtype=torch.float64, device=distance.device) * 0.01
    else:
        found = distance.unique()
        ends = found[:1] - 1, (found[:-1] + found[1:]) / 2, found[-1:] + 1
        thresholds = torch.cat(ends)
    parts = [torch.full((len(part),), k) for k, part in enumerate(same.tensor_split(folds))]
    return Binned(
        thresholds,
        torch.searchsorted(thresholds, distance, right=True),
        torch.cat(parts).to(distance.device),
        same,
        folds,
        rule == "in_sample",
    )


def check_folds(folds: int, pairs: int, rule: str) -> None:
    """InputError for another number of folds than 2 to `pairs`, or an unknown rule."""
    if rule not in THRESHOLD_RULES:
        raise InputError(unknown_name("thresholds rule", rule, THRESHOLD_RULES))
    if not 2 <= folds <= pairs:
        raise InputError(f"folds must be between 2 and the {pairs} pairs, got {folds}")


def fold_accuracy(pairs: Binned, weight: Tensor | None = None) -> FoldAccuracy:
    """Accuracy of each fold at the first threshold with the highest accuracy on the others.

    Args:
        pairs: from `bin_by_threshold`.
        weight: (N,) how often each pair counts; once when not given.
    """
    dtype = torch.int64 if weight is None else torch.float64
    weight = torch.ones_like(pairs.bins) if weight is None else weight
    size = len(pairs.thresholds)
    counts = torch.zeros(pairs.folds, 2, size + 1, dtype=dtype, device=weight.device)
    counts.index_put_((pairs.fold, pairs.same.long(), pairs.bins), weight, accumulate=True)
    accepted = counts[..., :size].cumsum(-1)
    impostors = counts[:, 0].sum(-1, keepdim=True)
    right = accepted[:, 1] + impostors - accepted[:, 0]  # (folds, thresholds)
    in_fold = counts.sum((1, 2))
    if pairs.in_sample:
        best = right.sum(0).argmax().expand(pairs.folds)
    else:
        others = (in_fold.sum() - in_fold)[:, None]
        best = ((right.sum(0) - right).double() / others).argmax(1)  # the first maximum
    rows = torch.arange(pairs.folds, device=weight.device)
    return FoldAccuracy(right[rows, best].double() / in_fold, pairs.thresholds[best])


def tar_at_far_over_folds(
    distance: Tensor, same: Tensor, folds: int, fars: tuple[float, ...]
) -> dict[float, float]:
    """TAR at FAR as insightface's verification reports it (there called VAL).

    For each fold the threshold at which the other folds have that FAR, interpolated in a straight
    line on a grid of squared distances 0, 0.001, ... 3.999, is applied to it; the mean over the
    folds. Where several thresholds have the same FAR, the first counts; 0 where none reaches it.

    Args:
        distance: (N,) float64 squared distances in [0, 4].
        same: (N,) whether a pair is genuine.
        folds: contiguous parts.
        fars: rates in [0, 1].
    """
    grid = torch.arange(4000, dtype=torch.float64) * 0.001
    tars: dict[float, list[float]] = {far: [] for far in fars}
    blocks = torch.arange(len(same)).tensor_split(folds)
    for block in blocks:
        held_out = torch.zeros(len(same), dtype=torch.bool)
        held_out[block] = True
        impostor = distance[~held_out & ~same].sort().values
        genuine = distance[held_out & same]
        if not len(impostor) or not len(genuine):
            continue
        accepted = torch.searchsorted(impostor, grid, right=False).double() / len(impostor)
        for far in fars:
            reached = int(torch.searchsorted(accepted, torch.tensor(far, dtype=torch.float64)))
            if reached == len(grid):
                threshold = 0.0
            elif reached == 0:
                threshold = float(grid[0])
            else:
                below, at = accepted[reached - 1], accepted[reached]
                share = (far - below) / (at - below)
                threshold = float(grid[reached - 1] + share * 0.001)
            tars[far].append(float((genuine < threshold).double().mean()))
    return {far: sum(found) / len(found) for far, found in tars.items() if found}
