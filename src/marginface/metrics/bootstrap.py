"""Confidence intervals that respect identities: people are drawn again, not pairs.

Two pairs with a person in common are not independent, so intervals from single pairs are too
narrow. Here the people of a set are drawn with replacement; a genuine pair counts as often as its
person was drawn, an impostor pair as often as both were, multiplied (the vertex bootstrap; for the
case of 1:1 face matching see Fogliato, Patil and Perona, arXiv 2306.01198). Intervals are
percentiles over the replicates.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marginface.utils.errors import InputError

Weights = NDArray[np.float64]
Identities = NDArray[np.int64]
LEVEL = 0.95


class Estimate(NamedTuple):
    """A number and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def metrics(self, name: str) -> dict[str, float]:
        """Flat: the value, and the ends of the interval."""
        return {name: self.value, f"{name}/low": self.low, f"{name}/high": self.high}


def identity_weights(count: int, replicates: int, seed: int) -> Iterator[Weights]:
    """For each replicate how often each of `count` people was drawn."""
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        yield np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)


def pair_weights(
    first: Identities, second: Identities, replicates: int, seed: int
) -> Iterator[Weights]:
    """For each replicate how often each pair counts.

    Args:
        first, second: (N,) person of both sides, whole numbers from 0.
        replicates: how many.
        seed: decides the draws.

    Raises:
        InputError: lengths that differ.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise InputError(
            f"identities of pairs need two lists of one length, got {first.shape}, {second.shape}"
        )
    people, number = np.unique(np.concatenate([first, second]), return_inverse=True)
    one, other = number[: len(first)], number[len(first) :]
    one_person = one == other
    for drawn in identity_weights(len(people), replicates, seed):
        yield np.where(one_person, drawn[one], drawn[one] * drawn[other])


def intervals(
    values: Mapping[str, float],
    statistic: Callable[[Weights], Mapping[str, float]],
    weights: Iterator[Weights],
    trials: Mapping[str, int],
) -> dict[str, Estimate]:
    """Estimates of several statistics from the same replicates.

    Args:
        values: each statistic of the data as they are.
        statistic: the same from weights; NaN where a replicate leaves it undefined (all of them:
            the interval is that of all rates, 0 to 1).
        weights: from `identity_weights` or `pair_weights`.
        trials: of statistics that are rates, the people they were counted on; bounds rates of
            exactly 0 or 1, which every replicate repeats.
    """
    found: dict[str, list[float]] = {name: [] for name in values}
    for drawn in weights:
        for name, value in statistic(drawn).items():
            found[name].append(value)
    return {
        name: _estimate(values[name], np.array(drawn), trials.get(name))
        for name, drawn in found.items()
    }


def people_of(first: Identities, second: Identities, kept: NDArray[np.bool_]) -> int:
    """How many people some of the pairs show."""
    return len(np.unique(np.concatenate([first[kept], second[kept]])))


def _estimate(value: float, drawn: NDArray[np.float64], trials: int | None) -> Estimate:
    drawn = drawn[np.isfinite(drawn)]
    tail = (1 - LEVEL) / 2
    if not len(drawn):
        return Estimate(value, min(0.0, value), max(1.0, value))  # nothing is known
    low, high = np.quantile(drawn, [tail, 1 - tail])
    # A rate of so few events moves in steps; the interval always holds the value itself.
    low, high = min(float(low), value), max(float(high), value)
    if trials and value in (0.0, 1.0) and low == high:
        # No error was seen: the exact binomial bound (Clopper and Pearson 1934), a trial a person.
        bound = tail ** (1 / trials)
        low, high = (bound, 1.0) if value else (0.0, 1 - bound)
    return Estimate(value, low, high)
