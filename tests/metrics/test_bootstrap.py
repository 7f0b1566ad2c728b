"""Intervals: weights against repeated pairs, coverage in a simulation, two networks compared."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marginface.metrics import bootstrap_rates as weighted
from marginface.metrics.bootstrap import Estimate, identity_weights, intervals, pair_weights
from marginface.metrics.bootstrap_rates import WeightedRates
from marginface.metrics.groups import group_rates
from marginface.metrics.paired_comparison import compare_decisions
from marginface.metrics.quality import error_versus_reject, qmagface_scores
from marginface.metrics.roc import area_under, equal_error_rate, nearest_tars
from marginface.metrics.scores import sort_scores
from marginface.metrics.verification import rate_name
from marginface.utils.errors import InputError

FARS = (0.0, 0.05, 0.2, 0.6, 1.0)


def test_people_are_drawn_with_replacement() -> None:
    drawn = list(identity_weights(5, 300, seed=0))
    assert all(weights.sum() == 5 for weights in drawn)
    assert np.mean(drawn, axis=0) == pytest.approx(1, abs=0.2)
    again = list(identity_weights(5, 300, seed=0))
    assert all((a == b).all() for a, b in zip(drawn, again, strict=True))


def test_pairs_count_as_often_as_their_people() -> None:
    first, second = np.array([7, 7, 9, 3]), np.array([7, 9, 3, 3])
    people = {3: 0, 7: 1, 9: 2}
    for weights, drawn in zip(
        pair_weights(first, second, 50, seed=1), identity_weights(3, 50, seed=1), strict=True
    ):
        for weight, a, b in zip(weights, first, second, strict=True):
            expected = drawn[people[a]] * (drawn[people[b]] if a != b else 1)
            assert weight == expected
    with pytest.raises(InputError, match="two lists of one length"):
        next(pair_weights(first, second[:3], 1, 0))


scored = st.lists(
    st.tuples(st.integers(-5, 5), st.booleans(), st.integers(0, 3)), min_size=4, max_size=50
).filter(lambda rows: {same for _, same, w in rows if w} == {True, False})


@given(rows=scored, distinct=st.booleans())
def test_weighted_rates_are_those_of_repeated_pairs(
    rows: list[tuple[int, bool, int]], distinct: bool
) -> None:
    scores = np.array([row[0] for row in rows], float)
    if distinct:
        scores += np.linspace(0, 0.5, len(rows))
    same, weight = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    rates = WeightedRates(scores, same)
    found = rates(weight[rates.pairs()].astype(float), FARS)
    repeated = sort_scores(np.repeat(scores, weight), np.repeat(same, weight))
    assert found["auc"] == pytest.approx(area_under(repeated))
    assert found["eer"] == pytest.approx(equal_error_rate(repeated))
    if distinct and set(weight) <= {0, 1}:  # among ties the replicates keep fewer ROC points
        expected = nearest_tars(repeated, FARS)
        assert {far: found[f"tar@{rate_name(far)}"] for far in FARS} == pytest.approx(expected)


def test_many_impostors_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    same = np.arange(30_000) < 500
    scores = rng.standard_normal(30_000) + 2 * same
    every = WeightedRates(scores, same)
    monkeypatch.setattr(weighted, "_HIGHEST", 3000)
    monkeypatch.setattr(weighted, "_SAMPLED", 3000)
    some = WeightedRates(scores, same)
    assert len(some.pairs()) == 6500
    fars = (1e-3, 1e-2, 1e-1, 0.3)
    few, all_ = some(np.ones(6500), fars), every(np.ones(30_000), fars)
    for key, tolerance in {
        "tar@1e-3": 1e-9,
        "tar@1e-2": 1e-9,
        "tar@1e-1": 1e-9,
        "tar@3e-1": 0.01,
        "auc": 3e-3,
        "eer": 3e-3,
    }.items():
        assert few[key] == pytest.approx(all_[key], abs=tolerance), key


def test_a_perfect_result_has_an_interval_too() -> None:
    weights = identity_weights(20, 50, 0)
    values = {"rate": 1.0, "miss": 0.0, "spread": 0.0}
    found = intervals(values, lambda w: values, weights, {"rate": 20, "miss": 20})
    assert found["rate"] == (1.0, pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert found["miss"] == (0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert found["spread"] == (0.0, 0.0, 0.0)  # no rate
    undefined = intervals(
        {"rate": 0.5}, lambda w: {"rate": math.nan}, identity_weights(3, 5, 0), {}
    )
    assert undefined["rate"] == (0.5, 0.0, 1.0)
    assert Estimate(0.5, 0.4, 0.6).metrics("lfw/auc") == {
        "lfw/auc": 0.5, "lfw/auc/low": 0.4, "lfw/auc/high": 0.6,
    }  # fmt: skip


def test_coverage() -> None:
    """People differ, so pairs hang together: intervals over people hold the true rate, those over
    single pairs do not."""
    rng = np.random.default_rng(0)
    held = Counter[str]()
    runs = 60
    for run in range(runs):
        # 40 people with 10 genuine pairs each; a person is missed with a rate of his own.
        rate = np.repeat(rng.beta(0.5, 1.5, 40), 10)  # 25 % on average
        missed = rng.random(400) < rate
        person = np.repeat(np.arange(40), 10)
        for kind, whose in (("people", person), ("pairs", np.arange(400))):
            interval = intervals(
                {"miss": float(missed.mean())},
                lambda w, missed=missed: {"miss": float((w * missed).sum() / w.sum())},
                pair_weights(whose, whose, 200, seed=run),
                {"miss": len(np.unique(whose))},
            )["miss"]
            held[kind] += interval.low <= 0.25 <= interval.high
    assert held["people"] / runs > 0.85
    assert held["pairs"] / runs < 0.8


def test_comparison() -> None:
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(100), 10)
    good = rng.random(1000) < 0.95
    worse = good & (rng.random(1000) < 0.9)
    found = compare_decisions(good, worse, person, person, replicates=300)
    assert found.verdict == "first"
    assert found.only_second == 0
    assert found.only_first == int((good & ~worse).sum())
    assert found.difference.value == pytest.approx(good.mean() - worse.mean())
    assert found.p_value < 1e-6
    turned = compare_decisions(worse, good, person, person, replicates=300)
    assert turned.verdict == "second"
    assert turned.difference.low == pytest.approx(-found.difference.high)


def test_equal_results_are_a_tie() -> None:
    right = np.array([True, False, True, True])
    person = np.arange(4)
    same = compare_decisions(right, right, person, person)
    assert (same.verdict, same.p_value, same.difference) == ("equal", 1.0, (0.0, 0.0, 0.0))
    # One pair more of four is nothing to go by.
    better = compare_decisions(np.ones(4, bool), right, person, person)
    assert (better.verdict, better.only_first) == ("equal", 1)
    # All errors of one come from a single person: the digits differ, the verdict does not.
    one_person = np.repeat([0, 1, 2, 3, 4], 20)
    bad = one_person > 0
    assert compare_decisions(np.ones(100, bool), bad, one_person, one_person).verdict == "equal"
    with pytest.raises(InputError, match="needs the same pairs, got 4 and 3 decisions"):
        compare_decisions(right, right[:3], person, person)


def test_groups() -> None:
    scores = np.array([0.9, 0.2, 0.8, 0.7, 0.1, 0.6])
    same = np.array([True, True, True, False, False, False])
    one = np.array(["a", "a", "b", "a", "b", "a"])
    other = np.array(["a", "a", "b", "a", "b", "b"])
    person = np.arange(6)
    rates = {
        r.group: r for r in group_rates(scores, same, one, other, person, person + (~same), 0.5, 50)
    }
    assert list(rates) == ["a", "b", "between groups"]
    assert (rates["a"].genuine, rates["a"].impostor) == (2, 1)
    assert rates["a"].fnmr is not None
    assert rates["a"].fnmr.value == 0.5
    assert rates["a"].fmr is not None
    assert rates["a"].fmr.value == 1.0
    assert rates["between groups"].fnmr is None
    with pytest.raises(InputError, match="differ in length"):
        group_rates(scores, same, one[:5], other, person, person, 0.5)


@given(seed=st.integers(0, 99))
def test_quality(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, same = rng.uniform(-1, 1, 30), rng.random(30) < 0.7
    q1, q2 = rng.uniform(1, 20, 30), rng.uniform(1, 20, 30)
    lowered = qmagface_scores(scores, q1, q2, alpha=0.1, beta=0.2)
    for s, a, b, got in zip(scores, q1, q2, lowered, strict=True):
        assert got == pytest.approx(s + min(a, b) * min(0.0, 0.2 * s - 0.1))
    if not same.any():
        with pytest.raises(InputError, match="no genuine pair"):
            error_versus_reject(scores, same, q1, q2, 0.0)
        return
    shares, fnmr = error_versus_reject(scores, same, q1, q2, 0.0)
    ranked = sorted(
        zip(np.minimum(q1, q2)[same], scores[same] < 0, strict=True), key=lambda x: -x[0]
    )
    for share, rate in zip(shares, fnmr, strict=True):
        kept = ranked[: max(round((1 - share) * len(ranked)), 1)]
        assert rate == pytest.approx(sum(miss for _, miss in kept) / len(kept))
    with pytest.raises(InputError, match="equally many, got"):
        qmagface_scores(scores, q1[:3], q2, 0.1, 0.2)


def test_tensors_and_arrays_mean_the_same() -> None:
    scores, same = [0.1, 0.5, 0.3], [False, True, False]
    assert sort_scores(scores, same).genuine.tolist() == sort_scores(  # type: ignore[arg-type]
        torch.tensor(scores), np.array(same)  # type: ignore[arg-type]
    ).genuine.tolist()  # fmt: skip
