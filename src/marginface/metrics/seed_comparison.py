"""What runs with several seeds say: means with intervals, differences of groups, main effects.

All intervals are Student's t over seeds: a seed is one draw of everything that is random in a run.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from marginface.metrics.bootstrap import LEVEL, Estimate

_ROUNDING = 1e-12
Seeds = Mapping[int, float]  # a number of each seed


class Difference(NamedTuple):
    """Two groups of runs compared.

    Attributes:
        first, second: names of the groups.
        value: mean of the first minus mean of the second.
        low, high: interval at the level that Holm's correction leaves this comparison; NaN where
            the seeds are too few, or all differ by exactly the same.
        p_value: of a two-sided t test; NaN likewise.
        adjusted: the same after Holm's correction.
        seeds: pairs of seeds, or the smaller group where seeds do not match.
        paired: whether runs of the same seed were compared.
    """

    first: str
    second: str
    value: float
    low: float
    high: float
    p_value: float
    adjusted: float
    seeds: int
    paired: bool

    @property
    def differs(self) -> bool:
        """Whether the groups are called different."""
        return self.adjusted < 1 - LEVEL


class Effect(NamedTuple):
    """How far a setting at one of its values moves the mean over all others."""

    setting: str
    level: str
    estimate: Estimate


class Cell(NamedTuple):
    """A run of a factorial sweep: its value of every setting, its seed, what came out."""

    levels: tuple[str, ...]
    seed: int
    value: float


def mean_interval(values: Sequence[float] | NDArray[np.floating], level: float = LEVEL) -> Estimate:
    """Mean and t-interval of it; the interval of a single value is NaN.

    Args:
        values: independent ones, at least one.
        level: of the interval, in (0, 1).
    """
    found = np.asarray(values, np.float64)
    mean, n = float(found.mean()), len(found)
    if n < 2:
        return Estimate(mean, math.nan, math.nan)
    half = float(stdtrit(n - 1, (1 + level) / 2) * found.std(ddof=1) / math.sqrt(n))
    return Estimate(mean, mean - half, mean + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values after Holm's correction (Holm 1979): whether any is below a level errs so often.

    NaN stands for a test that could not be made, and counts for nothing.
    """
    adjusted, known = [math.nan] * len(p_values), [p for p in p_values if not math.isnan(p)]
    order = sorted((p, n) for n, p in enumerate(p_values) if not math.isnan(p))
    highest = 0.0
    for rank, (p, number) in enumerate(order):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[number] = highest
    return adjusted


def compare_groups(groups: Mapping[str, Seeds]) -> list[Difference]:
    """Every two groups compared, corrected for the number of comparisons.

    Runs of the same seed are paired where two groups share two seeds or more: they have the same
    data order and held-out people, so part of what is random cancels. Others are compared by
    Welch's test.

    Args:
        groups: by name, numbers of the group's seeds.
    """
    tests = [_test(groups[a], groups[b]) for a, b in itertools.combinations(groups, 2)]
    adjusted = holm([test.p_value for test in tests])
    # Holm rejects from the smallest p on until one fails; that one's level is that of the others.
    count = sum(not math.isnan(p) for p in adjusted)
    order = sorted(
        (n for n, p in enumerate(adjusted) if not math.isnan(p)), key=lambda n: tests[n].p_value
    )
    rejected = sum(p < 1 - LEVEL for p in adjusted)
    alphas = {n: (1 - LEVEL) / (count - min(rank, rejected)) for rank, n in enumerate(order)}
    found = []
    for number, (first, second) in enumerate(itertools.combinations(groups, 2)):
        test = tests[number]
        half = math.nan
        if number in alphas:
            half = float(stdtrit(test.freedom, 1 - alphas[number] / 2)) * test.error
        found.append(
            Difference(
                first, second, test.value, test.value - half, test.value + half,
                test.p_value, adjusted[number], test.seeds, test.paired,
            )
        )  # fmt: skip
    return found


class _Test(NamedTuple):
    value: float
    error: float  # standard error of the value
    freedom: float
    p_value: float
    seeds: int
    paired: bool


def _test(first: Seeds, second: Seeds) -> _Test:
    common = [seed for seed in first if seed in second]
    if len(common) >= 2:
        differences = np.array([first[seed] - second[seed] for seed in common])
        value, n = float(differences.mean()), len(common)
        error = float(differences.std(ddof=1)) / math.sqrt(n)
        return _Test(value, error, n - 1, _p_value(value, error, n - 1), n, True)
    a, b = (np.array(list(group.values()), np.float64) for group in (first, second))
    value, fewer = float(a.mean() - b.mean()), min(len(a), len(b))
    if fewer < 2:
        return _Test(value, math.nan, math.nan, math.nan, fewer, False)
    parts = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    error = math.sqrt(sum(parts))
    if error == 0:
        return _Test(value, 0.0, fewer - 1, _p_value(value, 0.0, fewer - 1), fewer, False)
    # Welch and Satterthwaite's degrees of freedom.
    freedom = float(sum(parts) ** 2 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1)))
    return _Test(value, error, freedom, _p_value(value, error, freedom), fewer, False)


def _p_value(value: float, error: float, freedom: float) -> float:
    if error <= _ROUNDING * max(1.0, abs(value)):
        # Accuracies are whole numbers of pairs: differences of few seeds are equal now and then,
        # and then have no spread that they could be judged by.
        return 1.0 if abs(value) <= _ROUNDING else math.nan
    return float(2 * stdtr(freedom, -abs(value / error)))


def main_effects(settings: Sequence[str], cells: Sequence[Cell]) -> list[Effect]:
    """The main effect of each value of each setting of a factorial sweep.

    It is the mean of the runs with this value minus the mean of all runs, for each seed, then the
    mean and t-interval over the seeds.

    Args:
        settings: names of the settings that were varied.
        cells: the runs, with their values in the order of the settings.

    Returns:
        Nothing where fewer than two settings were varied, or where the sweep is not factorial:
        every combination once for each seed.
    """
    levels = [sorted({cell.levels[n] for cell in cells}) for n in range(len(settings))]
    seeds = sorted({cell.seed for cell in cells})
    varied = [n for n, found in enumerate(levels) if len(found) > 1]
    # Counted, not listed: values of a random search make more combinations than there is memory.
    wanted = math.prod(len(found) for found in levels) * len(seeds)
    made = {(*cell.levels, cell.seed) for cell in cells}
    if len(varied) < 2 or not len(cells) == len(made) == wanted:
        return []
    effects = []
    for number in varied:
        for level in levels[number]:
            moved = []
            for seed in seeds:
                of_seed = [cell for cell in cells if cell.seed == seed]
                with_level = [c.value for c in of_seed if c.levels[number] == level]
                moved.append(np.mean(with_level) - np.mean([c.value for c in of_seed]))
            effects.append(Effect(settings[number], level, mean_interval(np.array(moved))))
    return effects
