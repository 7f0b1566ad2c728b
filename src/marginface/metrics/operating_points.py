"""Operating points: thresholds for false match rates, and their rates on other sets."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from marginface.metrics.scores import ScoredPairs, checked_rate, count_at_least

RULE_OF_30 = 30  # errors one must see for a rate to be within 30 % of its value, 90 % of the time


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold does.

    Attributes:
        wanted: the false match rate the threshold was chosen for.
        threshold: accept scores >= it.
        fmr: share of impostor pairs accepted.
        fnmr: share of genuine pairs refused.
        false_matches: impostor pairs accepted.
        supported: whether there are impostor pairs enough to know this rate: 30 false matches
            expected (the rule of 30, Doddington et al. 2000).
    """

    wanted: float
    threshold: float
    fmr: float
    fnmr: float
    false_matches: int
    supported: bool


def operating_points(pairs: ScoredPairs, fmrs: Iterable[float]) -> list[OperatingPoint]:
    """The lowest threshold whose false match rate does not exceed each of `fmrs`.

    Args:
        pairs: scores, for instance cosines.
        fmrs: false match rates in [0, 1].
    """
    return [
        operating_point(pairs, _threshold_for(pairs.impostor, checked_rate(fmr)), fmr)
        for fmr in fmrs
    ]


def operating_point(pairs: ScoredPairs, threshold: float, wanted: float) -> OperatingPoint:
    """What `threshold` does on `pairs`; also on others than it was chosen on."""
    limit = _at_least(threshold, pairs.impostor)
    false_matches = count_at_least(pairs.impostor, limit)
    return OperatingPoint(
        wanted=wanted,
        threshold=threshold,
        fmr=false_matches / len(pairs.impostor),
        fnmr=1 - count_at_least(pairs.genuine, limit) / len(pairs.genuine),
        false_matches=false_matches,
        supported=wanted * len(pairs.impostor) >= RULE_OF_30,
    )


def transfer(
    chosen_on: ScoredPairs, applied_to: ScoredPairs, fmrs: Iterable[float]
) -> list[OperatingPoint]:
    """What thresholds chosen on one set do on another.

    Args:
        chosen_on, applied_to: scores of one network on both.
        fmrs: false match rates on the first.
    """
    chosen = operating_points(chosen_on, fmrs)
    return [operating_point(applied_to, point.threshold, point.wanted) for point in chosen]


def _threshold_for(impostor: Tensor, fmr: float) -> float:
    # The guard keeps 0.001 x 3000 from being 2.9999999999999996 false matches.
    allowed = min(math.floor(fmr * len(impostor) + 1e-9), len(impostor))
    if allowed == len(impostor):
        return float(impostor[0])
    one_too_many = impostor[len(impostor) - 1 - allowed]
    return float(torch.nextafter(one_too_many, impostor.new_tensor(math.inf)))


def _at_least(threshold: float, like: Tensor) -> Tensor:
    """The smallest number of the type of `like` that is not below the threshold."""
    number = like.new_tensor(threshold)
    if float(number) < threshold:
        number = torch.nextafter(number, like.new_tensor(math.inf))
    return number
