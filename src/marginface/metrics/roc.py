"""The ROC curve and rates on it: TAR at FAR, AUC, EER, DET.

A higher score means more alike; a pair is accepted when its score is >= a threshold.
"""

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from marginface.metrics.scores import (
    ScoredPairs,
    ascending,
    checked_pairs,
    checked_rate,
    count_above,
    count_at_least,
    sort_scores,
)
from marginface.utils.errors import InputError, unknown_name

Rule = Literal["nearest", "interpolated"]
RULES = ("nearest", "interpolated")
_SAMPLE = 1 << 16
_WINDOW = 1024  # impostor scores on each side of the wanted rank


class _Top(NamedTuple):
    """All genuine scores and the highest impostor scores, of `total`."""

    pairs: ScoredPairs
    total: int


class Roc(NamedTuple):
    """Points from (0, 0) to (1, 1): a pair is accepted when its score is >= the threshold."""

    far: Tensor
    tar: Tensor
    threshold: Tensor


def roc_curve(scores: Tensor, same: Tensor) -> Roc:
    """The points where the curve bends, as scikit-learn's roc_curve keeps them.

    Args, Raises: see `sort_scores`.
    """
    pairs = sort_scores(scores, same)
    threshold, impostors, genuine = _points(pairs)
    kept = _bends(impostors, genuine)
    kept[0] = kept[-1] = True
    zero = torch.zeros(1, dtype=torch.float64, device=threshold.device)
    return Roc(
        torch.cat([zero, impostors[kept].double() / len(pairs.impostor)]),
        torch.cat([zero, genuine[kept].double() / len(pairs.genuine)]),
        torch.cat([torch.full_like(threshold[:1], torch.inf), threshold[kept]]),
    )


def tar_at_far(
    scores: Tensor, labels: Tensor, fars: Iterable[float], rule: Rule = "nearest"
) -> dict[float, float]:
    """Share of genuine pairs accepted where a share `far` of the impostors is.

    Args:
        scores: (N,) similarities, finite.
        labels: (N,) whether a pair is genuine.
        fars: false accept rates in [0, 1]; the keys of the result.
        rule: "nearest" is that of insightface's IJB script: the ROC point whose FAR is nearest, no
            interpolation, of equally near ones the larger FAR (and the larger TAR).
            "interpolated" goes in straight lines from ROC point to ROC point.

    Raises:
        InputError: see `sort_scores`; a FAR outside [0, 1]; another rule.
    """
    scores, same = checked_pairs(scores, labels)
    fars = list(fars)
    if rule == "interpolated":
        return interpolated_tars(sort_scores(scores, same), fars)
    if rule != "nearest":
        raise InputError(unknown_name("rule", str(rule), RULES))
    top = _highest(scores, same, max(map(checked_rate, fars), default=0.0))
    tars = {}
    for far in fars:
        tar = _nearest_tar(top, far)
        if tar is None:  # the point is among the scores left out
            return nearest_tars(sort_scores(scores, same), fars)
        tars[far] = tar
    return tars


def nearest_tars(pairs: ScoredPairs, fars: Iterable[float]) -> dict[float, float]:
    """TAR at the ROC point nearest to each FAR, see `tar_at_far`."""
    everything = _Top(pairs, len(pairs.impostor))
    tars = {}
    for far in fars:
        tar = _nearest_tar(everything, checked_rate(far))
        assert tar is not None, "nothing is left out"
        tars[far] = tar
    return tars


def interpolated_tars(pairs: ScoredPairs, fars: Iterable[float]) -> dict[float, float]:
    """TAR on the straight line between the ROC points around each FAR."""
    genuine, impostor = pairs
    tars = {}
    for far in fars:
        allowed = checked_rate(far) * len(impostor)
        if allowed >= len(impostor):
            tars[far] = 1.0
            continue
        # The impostor score that would be one too many, and the points before and at it.
        value = impostor[len(impostor) - 1 - math.floor(allowed)]
        share = (allowed - count_above(impostor, value)) / (
            count_at_least(impostor, value) - count_above(impostor, value)
        )
        accepted = count_above(genuine, value)
        tars[far] = (accepted + share * (count_at_least(genuine, value) - accepted)) / len(genuine)
    return tars


def area_under(pairs: ScoredPairs) -> float:
    """AUC: the probability that a genuine pair scores above an impostor, ties counted half."""
    genuine, impostor = pairs
    below = torch.searchsorted(impostor, genuine, right=False).sum(dtype=torch.int64)
    not_above = torch.searchsorted(impostor, genuine, right=True).sum(dtype=torch.int64)
    return (int(below) + int(not_above)) / (2 * len(genuine) * len(impostor))


def equal_error_rate(pairs: ScoredPairs) -> float:
    """Where the share of accepted impostors equals that of refused genuine pairs, interpolated."""

    def rates(value: Tensor) -> tuple[float, float]:
        return (
            count_at_least(pairs.impostor, value) / len(pairs.impostor),
            1 - count_at_least(pairs.genuine, value) / len(pairs.genuine),
        )

    # The first threshold, from above, at which the false accepts are not fewer; false accepts
    # rise and false rejects fall on the way down, so bisection finds it in each list.
    crossings = []
    for values in pairs:
        low, high = -1, len(values) - 1  # values[low] is past the crossing, values[high] not known
        while low < high:
            middle = (low + high + 1) // 2
            far, frr = rates(values[middle])
            low, high = (middle, high) if far >= frr else (low, middle - 1)
        if low >= 0:
            crossings.append(values[low])
    right = max(crossings)
    higher = [v[len(v) - count_above(v, right)] for v in pairs if count_above(v, right)]
    left_far, left_frr = rates(min(higher)) if higher else (0.0, 1.0)
    far, frr = rates(right)
    before, after = left_far - left_frr, far - frr
    return left_far + (-before / (after - before)) * (far - left_far)


def det_curve(pairs: ScoredPairs, points: int = 200) -> tuple[Tensor, Tensor]:
    """FMR and FNMR at thresholds that are evenly spaced in the logarithm of the FMR.

    Args:
        pairs: scores.
        points: at most so many, from one false match to all.
    """
    total = len(pairs.impostor)
    counts = torch.logspace(0, math.log10(total), points, dtype=torch.float64).round().long()
    # searchsorted wants its boundaries in the order and on the device of the list.
    values = pairs.impostor[total - counts.unique().to(pairs.impostor.device)]
    far = 1 - torch.searchsorted(pairs.impostor, values, right=False).double() / total
    frr = torch.searchsorted(pairs.genuine, values, right=False).double() / len(pairs.genuine)
    return far.cpu(), frr.cpu()


def _highest(scores: Tensor, same: Tensor, far: float) -> _Top:
    """The impostor scores needed for rates up to `far`: sorting all takes most of the time."""
    impostor = ~same
    total = int(torch.count_nonzero(impostor))
    needed = far * total + 4 * _WINDOW
    if needed < total / 4:
        sample = scores[:: max(len(scores) // _SAMPLE, 1)].sort().values
        threshold = sample[-1 - round(1.5 * needed / total * (len(sample) - 1))]
        highest = scores[impostor & (scores >= threshold)]
        if len(highest) >= needed:
            return _Top(ScoredPairs(ascending(scores[same]), ascending(highest)), total)
    return _Top(sort_scores(scores, same), total)


def _points(pairs: ScoredPairs) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct scores from above, and how many impostor and genuine scores reach each."""
    values = torch.cat([pairs.impostor, pairs.genuine]).unique()
    reached = [len(v) - torch.searchsorted(v, values, right=False) for v in reversed(pairs)]
    return values.flip(0), reached[0].flip(0), reached[1].flip(0)


def _bends(impostors: Tensor, genuine: Tensor) -> Tensor:
    """Which points are not on a straight line between their neighbors; ends are not known."""
    bends = torch.zeros(len(impostors), dtype=torch.bool, device=impostors.device)
    if len(impostors) > 2:
        bends[1:-1] = (impostors.diff(n=2) != 0) | (genuine.diff(n=2) != 0)
    return bends


def _nearest_tar(top: _Top, far: float) -> float | None:
    """Looks at the scores around the rank wanted only, further out when no point is kept there.

    None when the point may be below the impostor scores given.
    """
    pairs, total = top
    genuine, impostor = pairs
    here = len(impostor)
    wanted = far * total
    width = _WINDOW
    while True:
        last = min(math.ceil(wanted) + width, here)  # ranks from the highest score down
        first = max(math.floor(wanted) - width, 0)
        is_bottom, is_top = last == total, first == 0
        low, high = impostor[here - last], impostor[here - 1 - first]
        ends = [len(v) - (0 if is_top else count_above(v, high)) for v in pairs]
        begins = [0 if is_bottom else len(v) - count_at_least(v, low) for v in pairs]
        window = ScoredPairs(*(v[b:e] for v, b, e in zip(pairs, begins, ends, strict=True)))
        _, reached, accepted = _points(window)
        kept = _bends(reached, accepted)
        kept[0], kept[-1] = is_top, is_bottom
        origin = reached.new_zeros(1 if is_top else 0)  # the point (0, 0)
        reached = torch.cat([origin, here - ends[1] + reached[kept]])
        accepted = torch.cat([origin, len(genuine) - ends[0] + accepted[kept]])
        decided_below = is_top or bool((reached <= wanted).any())
        decided_above = is_bottom or bool((reached >= wanted).any())
        if decided_below and decided_above:
            gap = (reached.double() / total - far).abs().flip(0)
            return int(accepted.flip(0)[gap.argmin()]) / len(genuine)
        if last == here < total:
            return None
        width *= 8
