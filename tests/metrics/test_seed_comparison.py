"""Statistics over seeds, against scipy and against loops over the formulas."""

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats

from marginface.metrics.seed_comparison import (
    Cell,
    compare_groups,
    holm,
    main_effects,
    mean_interval,
)


def test_the_t_interval_is_scipys() -> None:
    values = np.random.default_rng(0).normal(0.9, 0.02, 5)
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert found == pytest.approx((values.mean(), low, high))
    one = mean_interval([0.5])
    assert one.value == 0.5
    assert math.isnan(one.low)


def test_holm_against_the_definition() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        p = rng.uniform(0, 0.2, rng.integers(1, 8)).tolist()
        # Step down from the smallest: go on while p <= level / (number left).
        for level in (0.01, 0.05, 0.1):
            rejected = set()
            for rank, number in enumerate(np.argsort(p, kind="stable")):
                if p[number] > level / (len(p) - rank):
                    break
                rejected.add(int(number))
            adjusted = holm(p)
            assert {n for n, a in enumerate(adjusted) if a <= level} == rejected


def test_holm_leaves_out_what_could_not_be_tested() -> None:
    adjusted = holm([0.02, math.nan, 0.01])
    assert adjusted[::2] == pytest.approx([0.02, 0.02])
    assert math.isnan(adjusted[1])


def test_equal_seeds_are_paired_and_others_not() -> None:
    rng = np.random.default_rng(2)
    of_seed = rng.normal(0, 0.05, 4)  # much larger than the difference
    a = {s: 0.90 + float(of_seed[s]) for s in range(4)}
    b = {s: 0.88 + float(of_seed[s]) + 0.001 * s for s in range(4)}
    [paired] = compare_groups({"a": a, "b": b})
    test = stats.ttest_rel(list(a.values()), list(b.values()))
    assert paired.paired
    assert paired.p_value == pytest.approx(test.pvalue)
    interval = test.confidence_interval(0.95)
    assert (paired.low, paired.high) == pytest.approx((interval.low, interval.high))
    assert paired.differs
    [apart] = compare_groups({"a": a, "b": {s + 10: v for s, v in b.items()}})
    welch = stats.ttest_ind(list(a.values()), list(b.values()), equal_var=False)
    assert not apart.paired
    assert apart.p_value == pytest.approx(welch.pvalue)
    interval = welch.confidence_interval(0.95)
    assert (apart.low, apart.high) == pytest.approx((interval.low, interval.high))
    assert not apart.differs


def test_only_common_seeds_are_paired() -> None:
    a, b = {1: 0.9, 2: 0.91, 3: 0.95}, {2: 0.89, 3: 0.94, 4: 0.1}
    [found] = compare_groups({"a": a, "b": b})
    assert (found.seeds, found.paired) == (2, True)
    assert found.value == pytest.approx(np.mean([0.91 - 0.89, 0.95 - 0.94]))


def test_one_seed_says_nothing() -> None:
    [found] = compare_groups({"a": {1: 0.9}, "b": {1: 0.1}})
    assert math.isnan(found.p_value)
    assert not found.differs
    assert found.value == pytest.approx(0.8)


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.03, 0.2])
def test_the_interval_excludes_zero_exactly_where_groups_differ(shift: float) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        groups = {
            name: {s: 0.8 + shift * n * n + float(rng.normal(0, 0.01)) for s in range(3)}
            for n, name in enumerate("abcd")
        }
        for found in compare_groups(groups):
            assert found.differs == (not found.low <= 0 <= found.high)


def test_equal_runs_do_not_differ() -> None:
    same = {1: 0.5, 2: 0.6, 3: 0.7}
    [found] = compare_groups({"a": same, "b": dict(same)})
    assert found.p_value == 1
    assert not found.differs


def test_differences_without_spread_say_nothing() -> None:
    """Accuracies are whole numbers of pairs: of two seeds, equal differences are no rarity."""
    groups = {"a": {1: 0.90, 2: 0.91}, "b": {1: 0.89, 2: 0.90}, "c": {1: 0.5, 2: 0.9}}
    found = {(d.first, d.second): d for d in compare_groups(groups)}
    assert math.isnan(found["a", "b"].p_value)
    assert not found["a", "b"].differs
    assert math.isnan(found["a", "b"].low)
    assert found["a", "c"].adjusted == pytest.approx(min(1, 2 * found["a", "c"].p_value))


@pytest.mark.parametrize(("seeds", "pairs"), [(2, 800), (3, 300), (3, 6000)])
def test_equal_groups_of_rounded_accuracies(seeds: int, pairs: int) -> None:
    rng = np.random.default_rng(6)
    named = 0
    for _ in range(500):
        groups = {
            name: {s: round(float(rng.normal(0.9, 0.012)) * pairs) / pairs for s in range(seeds)}
            for name in "abcd"
        }
        named += any(found.differs for found in compare_groups(groups))
    assert named <= 35


def test_equal_groups_are_seldom_called_different() -> None:
    """The level of the whole: any difference among three equal groups with three seeds each."""
    rng = np.random.default_rng(4)
    named = 0
    for _ in range(1000):
        shared = rng.normal(0, 0.01, 3)  # data order and held-out people of a seed
        groups = {
            name: {seed: float(0.9 + shared[seed] + rng.normal(0, 0.01)) for seed in range(3)}
            for name in "abc"
        }
        named += any(found.differs for found in compare_groups(groups))
    assert named <= 70


def cells(values: Mapping[tuple[str, str, int], float]) -> list[Cell]:
    return [Cell((a, b), seed, value) for (a, b, seed), value in values.items()]


def test_main_effects_against_the_loop() -> None:
    rng = np.random.default_rng(5)
    values = {
        (a, b, seed): float(rng.normal())
        for a, b, seed in itertools.product(("x", "y", "z"), ("1", "2"), range(4))
    }
    found = {(e.setting, e.level): e.estimate for e in main_effects(["a", "b"], cells(values))}
    assert len(found) == 5
    for place, setting in enumerate("ab"):
        for level in {key[place] for key in values}:
            moved = []
            for seed in range(4):
                of_seed = {key: v for key, v in values.items() if key[2] == seed}
                with_it = [v for key, v in of_seed.items() if key[place] == level]
                moved.append(sum(with_it) / len(with_it) - sum(of_seed.values()) / len(of_seed))
            low, high = stats.t.interval(0.95, 3, np.mean(moved), stats.sem(moved))
            assert found[setting, level] == pytest.approx((np.mean(moved), low, high))


def test_a_random_search_is_no_factorial_sweep() -> None:
    """Forty values of each of eight settings: more combinations than there is memory."""
    rng = np.random.default_rng(7)
    found = [Cell(tuple(map(str, rng.random(8))), 1, 0.5) for _ in range(40)]
    assert main_effects([str(n) for n in range(8)], found) == []


def test_no_main_effects_of_what_is_not_factorial() -> None:
    values = dict.fromkeys(itertools.product("xy", "12", range(2)), 0.5)
    assert len(main_effects(["a", "b"], cells(values))) == 4
    del values["x", "1", 0]
    assert main_effects(["a", "b"], cells(values)) == []
    single = [Cell((a,), 0, 0.5) for a in "xy"]
    assert main_effects(["a"], single) == []
