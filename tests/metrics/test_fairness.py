"""Indices over groups, against loops over their formulas."""

import math

import numpy as np
import pytest

from marginface.metrics.fairness import (
    fairness,
    fairness_discrepancy_rate,
    garbe,
    inequity_rate,
)
from marginface.utils.errors import InputError

FMRS, FNMRS = [0.01, 0.02, 0.005, 0.04], [0.1, 0.3, 0.2, 0.25]


def test_fdr() -> None:
    a = max(abs(x - y) for x in FMRS for y in FMRS)
    b = max(abs(x - y) for x in FNMRS for y in FNMRS)
    assert fairness_discrepancy_rate(FMRS, FNMRS) == pytest.approx(1 - (0.5 * a + 0.5 * b))
    assert fairness_discrepancy_rate(FMRS, FNMRS, 0.9) == pytest.approx(1 - (0.9 * a + 0.1 * b))


def test_ir() -> None:
    expected = (0.04 / 0.005) ** 0.5 * (0.3 / 0.1) ** 0.5
    assert inequity_rate(FMRS, FNMRS) == pytest.approx(expected)
    assert math.isnan(inequity_rate([0.0, 0.1], [0.1, 0.1]))


def test_garbe() -> None:
    def gini(x: list[float]) -> float:
        n, mean = len(x), sum(x) / len(x)
        return n / (n - 1) * sum(abs(a - b) for a in x for b in x) / (2 * n * n * mean)

    assert garbe(FMRS, FNMRS) == pytest.approx(0.5 * gini(FMRS) + 0.5 * gini(FNMRS))
    assert garbe([0.2, 0.2], [0.1, 0.1]) == 0
    assert garbe([0.0, 0.4], [0.0, 0.4]) == pytest.approx(1)  # as unequal as can be
    assert garbe([0.0, 0.0], [0.0, 0.0]) == 0


@pytest.mark.parametrize("index", [fairness_discrepancy_rate, inequity_rate, garbe])
def test_rates_of_one_group_are_refused(index: object) -> None:
    with pytest.raises(InputError, match="two groups or more"):
        index([0.1], [0.1])  # type: ignore[operator]


def drawn(people: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    one, other, same = [], [], []
    for person in range(people):
        for _ in range(6):
            one += [person, person]
            other += [person, (person + 2 * int(rng.integers(1, people // 2))) % people]
            same += [True, False]
    first, second = np.array(one), np.array(other)
    genuine = np.array(same) & (first == second)
    group = np.array(["even", "odd"])
    scores = rng.normal(np.where(genuine, 0.6, 0.1), 0.2) - 0.1 * (first % 2)
    return {
        "scores": scores, "same": genuine, "group1": group[first % 2], "group2": group[second % 2],
        "identity1": first, "identity2": second,
    }  # fmt: skip


def test_of_pairs_within_groups() -> None:
    pairs = drawn()
    found = fairness(**pairs, threshold=0.35, replicates=200)
    rates: dict[str, list[float]] = {"fmr": [], "fnmr": []}
    for name in ("even", "odd"):
        within = (pairs["group1"] == name) & (pairs["group2"] == name)
        impostor, genuine = within & ~pairs["same"], within & pairs["same"]
        rates["fmr"].append(float((pairs["scores"][impostor] >= 0.35).mean()))
        rates["fnmr"].append(float((pairs["scores"][genuine] < 0.35).mean()))
    assert found["fdr"].value == pytest.approx(fairness_discrepancy_rate(*rates.values()))
    assert found["ir"].value == pytest.approx(inequity_rate(*rates.values()))
    assert found["garbe"].value == pytest.approx(garbe(*rates.values()))
    for estimate in found.values():
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.low < estimate.high


def test_one_group_has_no_indices() -> None:
    pairs = drawn()
    pairs["group1"] = pairs["group2"] = np.full(len(pairs["same"]), "all")
    assert fairness(**pairs, threshold=0.35) == {}


def test_a_group_without_errors_has_no_ratio() -> None:
    pairs = drawn()
    found = fairness(**pairs, threshold=5.0, replicates=20)
    assert "ir" not in found
    assert found["fdr"].value == 1
