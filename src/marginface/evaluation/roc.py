"""Operating points from scores: ROC, TAR at FAR, AUC, EER. A higher score means more alike."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from marginface.errors import InputError


class Roc(NamedTuple):
    """Points from (0, 0) to (1, 1): a pair is accepted when its score is >= the threshold."""

    far: Tensor
    tar: Tensor
    threshold: Tensor


def roc_curve(scores: Tensor, same: Tensor) -> Roc:
    """The points where the curve bends, as scikit-learn's roc_curve keeps them.

    Args:
        scores: (N,) similarities, finite.
        same: (N,) whether a pair is genuine; both kinds must occur.

    Raises:
        InputError: lengths differ, a score is not finite, or one kind is missing.
    """
    scores = torch.as_tensor(scores).detach().cpu().flatten()
    same = torch.as_tensor(same).cpu().flatten().bool()
    if scores.shape != same.shape:
        raise InputError(f"{len(scores)} scores for {len(same)} labels; they must be equally many")
    if not torch.isfinite(scores).all():
        raise InputError(f"{int((~torch.isfinite(scores)).sum())} scores are NaN or infinite")
    if same.all() or not same.any():
        kind = "impostor" if same.any() else "genuine"
        raise InputError(f"there is no {kind} pair among {len(same)}; rates need both kinds")
    scores, order = scores.sort(descending=True, stable=True)
    genuine = same[order].to(torch.float64).cumsum(0)
    impostor = torch.arange(1, len(scores) + 1, dtype=torch.float64) - genuine
    last_of_ties = torch.cat([scores[1:] != scores[:-1], torch.ones(1, dtype=torch.bool)])
    genuine, impostor, scores = genuine[last_of_ties], impostor[last_of_ties], scores[last_of_ties]
    if len(scores) > 2:
        # Points on a straight line between their neighbours carry nothing.
        bends = (genuine.diff().diff() != 0) | (impostor.diff().diff() != 0)
        ends = torch.ones(1, dtype=torch.bool)
        keep = torch.cat([ends, bends, ends])
        genuine, impostor, scores = genuine[keep], impostor[keep], scores[keep]
    zero = torch.zeros(1, dtype=torch.float64)
    return Roc(
        torch.cat([zero, impostor / impostor[-1]]),
        torch.cat([zero, genuine / genuine[-1]]),
        torch.cat([torch.full((1,), torch.inf, dtype=scores.dtype), scores]),
    )


def tar_at_far(scores: Tensor, labels: Tensor, fars: Iterable[float]) -> dict[float, float]:
    """Share of genuine pairs accepted where the share of accepted impostors is nearest to each FAR.

    The rule of insightface's IJB script: no interpolation; of equally near ROC points the one with
    the larger FAR counts. The keys are the FARs passed in.
    """
    return nearest_tars(roc_curve(scores, labels), fars)


def nearest_tars(roc: Roc, fars: Iterable[float]) -> dict[float, float]:
    """TAR at the ROC point nearest to each FAR."""
    # Reversed, so that the first minimum is the point with the larger FAR.
    reversed_far, reversed_tar = roc.far.flip(0), roc.tar.flip(0)
    return {far: float(reversed_tar[(reversed_far - float(far)).abs().argmin()]) for far in fars}


def area_under(roc: Roc) -> float:
    """AUC: the probability that a genuine pair scores above an impostor, ties counted half."""
    return float(torch.trapezoid(roc.tar, roc.far))


def equal_error_rate(roc: Roc) -> float:
    """Where the share of accepted impostors equals that of refused genuine pairs, interpolated."""
    difference = roc.far - (1 - roc.tar)  # rises from -1 to 1
    right = int((difference >= 0).to(torch.int8).argmax())
    left = right - 1
    weight = -difference[left] / (difference[right] - difference[left])
    return float(roc.far[left] + weight * (roc.far[right] - roc.far[left]))
