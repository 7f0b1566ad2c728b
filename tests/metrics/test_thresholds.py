"""Thresholds by false match rate: counted by loops, with intervals, interpolated, refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from marginface.metrics.threshold_estimates import (
    all_impostors,
    listed_impostors,
    threshold_at,
    thresholds_of,
)
from marginface.metrics.thresholds import FMRS, Threshold, lowest_supported, threshold_for
from marginface.utils.errors import InputError


def made(people: int, images: int, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    rng = torch.Generator().manual_seed(seed)
    who = np.repeat(np.arange(people), images)
    centers = torch.randn(people, 16, generator=rng)
    return centers[who] + 0.7 * torch.randn(len(who), 16, generator=rng), who


def test_all_pairs_of_two_people_count() -> None:
    embeddings, who = made(12, 3)
    found = all_impostors(embeddings, who)
    unit = torch.nn.functional.normalize(embeddings.double())
    expected = sorted(
        (
            float(unit[i] @ unit[j])
            for i in range(36)
            for j in range(i)
            if who[i] != who[j]
        ),
        reverse=True,
    )  # fmt: skip
    assert found.total == len(expected) == 36 * 33 // 2
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)
    # The weight of all pairs when people count so often, by a loop.
    drawn = np.random.default_rng(1).integers(0, 3, 12).astype(float)
    weight = sum(
        drawn[who[i]] * drawn[who[j]] for i in range(36) for j in range(i) if who[i] != who[j]
    )
    assert found.weigh(drawn) == pytest.approx(weight)
    with pytest.raises(InputError, match="images of two people"):
        all_impostors(embeddings[:3], who[:3])


def test_thresholds_allow_what_they_say() -> None:
    embeddings, who = made(60, 5)
    impostors = all_impostors(embeddings, who)
    for threshold in thresholds_of(impostors, name="x", flip=True, precision="32-true"):
        accepted = int((impostors.scores >= threshold.cosine).sum())
        assert accepted == threshold.false_matches <= threshold.fmr * impostors.total + 1e-9
        if threshold.false_matches + 1 <= threshold.fmr * impostors.total:
            raise AssertionError("a lower threshold would do")
        assert threshold.low <= threshold.cosine <= threshold.high
        assert threshold.fmr_low <= accepted / impostors.total <= threshold.fmr_high
        assert threshold.supported == (threshold.fmr * impostors.total >= 30 - 1e-6)
    # A float32 comparison decides alike.
    scores = impostors.scores.astype(np.float32)
    limit = threshold_at(impostors.scores, 100)
    assert (scores >= np.float32(limit)).sum() == (impostors.scores >= limit).sum() == 100


def test_the_interval_holds_the_rate_on_other_people() -> None:
    """Of 40 sets the 95 % interval of FMR 1e-2 misses the true rate in few."""
    truth = all_impostors(*made(400, 5, seed=999)).scores
    missed = 0
    for seed in range(40):
        impostors = all_impostors(*made(40, 4, seed=seed))
        (point,) = thresholds_of(impostors, [0.01], name="x", flip=True, precision="")
        rate = float((truth >= point.cosine).mean())
        missed += not point.fmr_low <= rate <= point.fmr_high
    assert missed <= 6


def test_listed_pairs() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=500)
    one, other = rng.integers(0, 50, 500), 50 + rng.integers(0, 50, 500)
    found = listed_impostors(scores, one, other)
    assert found.total == 500
    drawn = rng.integers(0, 3, found.people).astype(float)
    names = np.unique(np.concatenate([one, other]))
    of = dict(zip(names, drawn, strict=True))
    assert found.weigh(drawn) == sum(of[a] * of[b] for a, b in zip(one, other, strict=True))
    few = thresholds_of(found, name="few", flip=True, precision="")
    rare = next(t for t in few if t.fmr == 1e-5)
    assert rare.false_matches == 0
    assert rare.cosine > scores.max()
    assert not rare.supported
    assert lowest_supported(few, rare) == pytest.approx(0.1)


def at(fmr: float, cosine: float, impostors: int = 10**6, **more: object) -> Threshold:
    facts = {"set": "a", "flip": True, "precision": "32-true"} | more
    return Threshold(
        fmr,
        cosine,
        cosine - 0.1,
        cosine + 0.1,
        round(fmr * impostors),
        impostors,
        **facts,  # type: ignore[arg-type]
        fmr_low=fmr / 2,
        fmr_high=fmr * 2,
    )


def test_looking_one_up() -> None:
    known = [at(1e-2, 0.2), at(1e-4, 0.4), at(1e-2, 0.9, 1000, set="small")]
    assert threshold_for(known, 1e-2, flip=True).cosine == 0.2  # of the larger set
    between = threshold_for(known, 1e-3, flip=True)
    assert between.cosine == pytest.approx(0.3)
    assert (between.fmr, between.set) == (1e-3, "a")
    assert between.fmr_low == pytest.approx((5e-3 + 5e-5) / 2)
    without = [replace(t, fmr_low=None) for t in known]  # as in files of others
    assert threshold_for(without, 1e-3, flip=True).fmr_low is None
    for fmr, words in {
        1e-5: "from 1e-4 to 1e-2 on a, not for 1e-5",
        0.0: "between 0 and 1, got 0",
        1.5: "between 0 and 1, got 1.5",
    }.items():
        with pytest.raises(InputError, match=words):
            threshold_for(known, fmr, flip=True)
    with pytest.raises(InputError, match="thresholds with flip, and images are embedded without"):
        threshold_for(known, 1e-2, flip=False)
    with pytest.raises(InputError, match="with flip in int8"):
        threshold_for(known, 1e-2, flip=True, int8=True)
    with pytest.raises(InputError, match="the model has no thresholds"):
        threshold_for([], 1e-2, flip=True)
    assert len(FMRS) == len(set(FMRS)) == 21
