"""Thresholds of impostor scores: intervals from a bootstrap over people."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import bdtrik, betaincinv
from torch import Tensor

from marginface.metrics.bootstrap import LEVEL, Identities, Weights, identity_weights
from marginface.metrics.thresholds import FMRS, Threshold
from marginface.utils.errors import InputError

_REPLICATES = 200
_HIGHEST = 200_000  # impostor scores that intervals are made of
_MOST_IMAGES = 3_000  # whose impostor pairs are all compared: 4.5 million
_MOST_PAIRS = 1_000_000  # of a list, for intervals over people


class ImpostorScores(NamedTuple):
    """Scores of pairs that show two people, from the highest down.

    Attributes:
        scores: (N,) float64, all of them or the highest.
        one, other: (N,) person of both sides, whole numbers from 0; None when people are not known.
        total: pairs in all.
        people: number of people.
        weigh: the weight of all pairs in all when people count so often.
    """

    scores: NDArray[np.float64]
    one: Identities | None
    other: Identities | None
    total: int
    people: int
    weigh: Callable[[Weights], float]


def listed_impostors(
    scores: NDArray[np.floating], first: Identities, second: Identities
) -> ImpostorScores:
    """The impostor pairs of a list.

    Args:
        scores: (N,) of impostor pairs.
        first, second: (N,) person of both sides.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = np.asarray(scores, np.float64)[order]
    if len(order) > _MOST_PAIRS:
        return ImpostorScores(ordered, None, None, len(order), 0, lambda drawn: 0.0)
    people, number = np.unique(np.concatenate([first, second]), return_inverse=True)
    one, other = number[: len(first)][order], number[len(first) :][order]
    return ImpostorScores(
        ordered, one, other, len(order), len(people), lambda w: float((w[one] * w[other]).sum())
    )


def all_impostors(embeddings: Tensor, people: Identities, seed: int = 0) -> ImpostorScores:
    """Every pair of two people, of up to 3,000 images drawn at random.

    Args:
        embeddings: (N, D), not normalized.
        people: (N,) who an image shows.
        seed: decides which images are taken of more than that.

    Raises:
        InputError: images of one person only.
    """
    chosen = np.random.default_rng(seed).permutation(len(people))[:_MOST_IMAGES]
    names, number = np.unique(people[chosen], return_inverse=True)
    if len(names) < 2:
        raise InputError("impostor pairs need images of two people")
    unit = F.normalize(embeddings[torch.from_numpy(chosen)].float())
    count = np.bincount(number).astype(np.float64)

    def weigh(drawn: Weights) -> float:
        weights = drawn * count
        return float(weights.sum() ** 2 - (weights**2).sum()) / 2

    above = torch.triu_indices(len(unit), len(unit), 1)
    person = torch.from_numpy(number)
    different = person[above[0]] != person[above[1]]
    row, column = above[0][different], above[1][different]
    scores, order = (unit @ unit.T)[row, column].sort(descending=True)
    one, other = (person[side[order[:_HIGHEST]]].numpy() for side in (row, column))
    return ImpostorScores(scores.double().numpy(), one, other, len(scores), len(names), weigh)


def thresholds_of(
    impostors: ImpostorScores,
    fmrs: Sequence[float] = FMRS,
    *,
    name: str,
    flip: bool,
    precision: str,
    seed: int = 0,
) -> list[Threshold]:
    """The lowest threshold whose false match rate does not exceed each of `fmrs`.

    Intervals are those of a bootstrap over people (see `metrics.bootstrap`), where these are known
    and the rate is one of the 200,000 highest pairs; else binomial ones.

    Args:
        impostors: see `listed_impostors` and `all_impostors`.
        fmrs: rates in (0, 1]; where a rate is less than one pair in all, its threshold is just
            above the highest score.
        name: of the images.
        flip, precision: how they were embedded.
        seed: of the bootstrap.
    """
    scores, total = impostors.scores, impostors.total
    cosines = [threshold_at(scores, fmr * total) for fmr in fmrs]
    found = _binomial(scores, total, fmrs, cosines)
    if impostors.one is not None and impostors.people > 2:
        found = _over_people(impostors, fmrs, cosines, found, seed)
    return [
        Threshold(
            fmr,
            cosine,
            low,
            high,
            int((scores >= cosine).sum()),
            total,
            name,
            flip,
            precision,
            fmr_low,
            fmr_high,
        )
        for fmr, cosine, (low, high, fmr_low, fmr_high) in zip(fmrs, cosines, found, strict=True)
    ]


def threshold_at(descending: NDArray[np.float64], allowed: float) -> float:
    """The lowest threshold that at most `allowed` of the scores reach.

    The next float32 above the first score too many, so that it holds in either precision.
    """
    number = math.floor(allowed + 1e-9)
    if number >= len(descending):
        return float(descending[-1])
    above = np.nextafter(np.float32(descending[number]), np.float32(np.inf))
    return float(above)


_Interval = tuple[float, float, float, float]  # of the cosine, of the rate


def _binomial(
    scores: NDArray[np.float64], total: int, wanted: Sequence[float], cosines: Sequence[float]
) -> list[_Interval]:
    """As if pairs were independent."""
    tail = (1 - LEVEL) / 2
    found = []
    for fmr, cosine in zip(wanted, cosines, strict=True):
        fewer, more = (math.ceil(bdtrik(p, total, fmr)) for p in (tail, 1 - tail))
        seen = float((scores >= cosine).sum())
        low, high = threshold_at(scores, more), threshold_at(scores, max(fewer, 0))
        rates = _clopper_pearson(seen, total, tail)
        found.append((min(low, cosine), max(high, cosine), *rates))
    return found


def _clopper_pearson(seen: float, total: int, tail: float) -> tuple[float, float]:
    low = 0.0 if seen == 0 else float(betaincinv(seen, total - seen + 1, tail))
    high = 1.0 if seen == total else float(betaincinv(seen + 1, total - seen, 1 - tail))
    return low, high


def _over_people(
    impostors: ImpostorScores,
    wanted: Sequence[float],
    cosines: Sequence[float],
    binomial: list[_Interval],
    seed: int,
) -> list[_Interval]:
    """Where the people are drawn again; at least as wide as the binomial interval."""
    assert impostors.one is not None
    assert impostors.other is not None
    known = len(impostors.one)
    scores = impostors.scores[:known]
    reached = [int(np.searchsorted(-scores, -cosine, side="right")) for cosine in cosines]
    drawn_rates, drawn_cosines = [], []
    for drawn in identity_weights(impostors.people, _REPLICATES, seed):
        sums = np.cumsum(drawn[impostors.one] * drawn[impostors.other])
        total = impostors.weigh(drawn)
        if total <= 0:
            continue
        drawn_rates.append([(sums[n - 1] if n else 0.0) / total for n in reached])
        places = np.searchsorted(sums, [fmr * total for fmr in wanted], side="right")
        drawn_cosines.append(scores[np.minimum(places, known - 1)])
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    rates, limits = (np.quantile(np.array(d), tails, axis=0) for d in (drawn_rates, drawn_cosines))
    found = []
    for place, plain in enumerate(binomial):
        if reached[place] > known / 2 and known < impostors.total:
            found.append(plain)  # beyond the scores whose people are kept
            continue
        both = (*limits[:, place], *rates[:, place])
        found.append(
            (
                float(min(plain[0], both[0])), float(max(plain[1], both[1])),
                float(min(plain[2], both[2])), float(max(plain[3], both[3])),
            )
        )  # fmt: skip
    return found
