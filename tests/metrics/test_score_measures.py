"""d', ZeroFMR, FMR100, FMR1000 and the area under error-versus-discard, against loops."""

import math

import numpy as np
import pytest
import torch

from marginface.metrics.bootstrap_rates import WeightedRates
from marginface.metrics.quality import DiscardArea
from marginface.metrics.score_measures import score_measures
from marginface.metrics.scores import sort_scores


def scores(ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    same = rng.random(3000) < 0.5
    values = rng.normal(np.where(same, 0.5, 0.0), 0.2)
    return (np.round(values, 2) if ties else values), same


def loop(values: np.ndarray, same: np.ndarray, rate: float) -> float:
    """The lowest FNMR at a threshold whose FMR is at most `rate`."""
    genuine, impostor = values[same], values[~same]
    candidates = np.unique(np.concatenate([values, np.nextafter(values, np.inf)]))
    fits = [t for t in candidates if (impostor >= t).mean() <= rate]
    return min(float((genuine < t).mean()) for t in fits)


@pytest.mark.parametrize("ties", [False, True])
def test_against_the_loop(ties: bool) -> None:
    values, same = scores(ties)
    found = score_measures(sort_scores(torch.from_numpy(values), torch.from_numpy(same)))
    for name, rate in {"zero_fmr": 0.0, "fmr1000": 1e-3, "fmr100": 1e-2}.items():
        assert found[name] == pytest.approx(loop(values, same, rate)), name
    genuine, impostor = values[same], values[~same]
    expected = abs(genuine.mean() - impostor.mean()) / math.sqrt(
        (genuine.var() + impostor.var()) / 2
    )
    assert found["d_prime"] == pytest.approx(expected)


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_ones_are_those_of_repeated_pairs(ties: bool) -> None:
    values, same = scores(ties)
    rates = WeightedRates(values, same)
    weights = np.random.default_rng(1).integers(0, 4, len(values)).astype(float)
    repeated = np.repeat(values, weights.astype(int)), np.repeat(same, weights.astype(int))
    expected = score_measures(sort_scores(*map(torch.from_numpy, repeated)))
    assert rates.measures(weights[rates.pairs()]) == pytest.approx(expected)
    once = score_measures(sort_scores(torch.from_numpy(values), torch.from_numpy(same)))
    assert rates.measures(np.ones(len(values))) == pytest.approx(once)


def test_scores_that_do_not_vary_have_no_distance() -> None:
    same = torch.tensor([True, False])
    found = score_measures(sort_scores(torch.tensor([0.5, 0.5]), same))
    assert "d_prime" not in found
    assert found["zero_fmr"] == 1


def test_the_area_under_error_versus_discard() -> None:
    rng = np.random.default_rng(2)
    quality = rng.random((2, 2000))
    same = rng.random(2000) < 0.6
    values = rng.normal(quality.min(0), 0.3)
    area = DiscardArea(values, same, *quality, 0.4)()
    lowest = quality.min(0)[same]
    missed = (values < 0.4)[same][np.argsort(lowest)]
    n = len(missed)
    curve = [float(missed[round(s * n) :].mean()) for s in np.linspace(0, 0.2, 2001)]
    assert area == pytest.approx(np.mean(curve), rel=2e-3)
    assert area < missed.mean(), "this quality says something"
    weights = rng.integers(0, 3, 2000)
    every = [np.repeat(column, weights) for column in (values, same, *quality)]
    expected = DiscardArea(*every, 0.4)()
    assert DiscardArea(values, same, *quality, 0.4)(weights) == pytest.approx(expected)


def test_pairs_of_one_quality_have_no_order() -> None:
    """An image in several pairs is embedded several times, and its norm differs by rounding."""
    rng = np.random.default_rng(3)
    quality = np.repeat(rng.random(60), 5)
    same, values = np.ones(300, bool), rng.random(300)
    area = DiscardArea(values, same, quality, quality, 0.5)()
    for _ in range(5):
        noisy = quality * (1 + rng.normal(0, 1e-7, 300))
        assert DiscardArea(values, same, noisy, noisy, 0.5)() == pytest.approx(area, abs=1e-6)
