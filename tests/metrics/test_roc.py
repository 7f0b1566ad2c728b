"""Rates, thresholds and folds against loops over single pairs, ties included."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve as sklearn_roc_curve

from marginface.metrics import roc
from marginface.metrics.cross_validation import (
    bin_by_threshold,
    fold_accuracy,
    tar_at_far_over_folds,
)
from marginface.metrics.operating_points import operating_points, transfer
from marginface.metrics.roc import det_curve, tar_at_far
from marginface.metrics.scores import sort_scores
from marginface.metrics.verification import evaluate_pairs
from marginface.utils.errors import InputError

Rows = list[tuple[float, bool]]
scored = st.lists(
    st.tuples(st.integers(-6, 6).map(float), st.booleans()), min_size=2, max_size=80
).filter(lambda rows: len({same for _, same in rows}) == 2)


def columns(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows])


@given(rows=scored, window=st.integers(1, 4), sample=st.integers(1, 8))
def test_nearest_tar_from_few_scores(rows: Rows, window: int, sample: int) -> None:
    """However few scores are looked at, the point is the one scikit-learn's curve has."""
    scores, same = columns(rows)
    far, tar, _ = sklearn_roc_curve(same.numpy(), scores.numpy())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roc, "_WINDOW", window)
        patch.setattr(roc, "_SAMPLE", sample)
        for wanted in (0.0, 1e-6, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0):
            nearest = tar[::-1][np.argmin(np.abs(far[::-1] - wanted))]
            assert tar_at_far(scores, same, [wanted]) == {wanted: nearest}


def test_nearest_tar_of_many_scores() -> None:
    rng = np.random.default_rng(0)
    same = rng.random(400_000) < 0.01
    scores = (rng.standard_normal(400_000) + 2 * same).astype(np.float32)
    fars = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    far, tar, _ = sklearn_roc_curve(same, scores)
    expected = {f: tar[::-1][np.argmin(np.abs(far[::-1] - f))] for f in fars}
    assert tar_at_far(torch.from_numpy(scores), torch.from_numpy(same), fars) == expected


@given(rows=scored)
def test_interpolated_tar(rows: Rows) -> None:
    """On the polyline through all ROC points, at its upper end where it is vertical."""
    scores, same = columns(rows)
    far, tar, _ = sklearn_roc_curve(same.numpy(), scores.numpy(), drop_intermediate=False)
    for wanted in (0.0, 0.05, 0.25, 0.5, 0.77, 1.0):
        left = int(np.searchsorted(far, wanted, side="right")) - 1
        expected = tar[left]
        if left + 1 < len(far):
            share = (wanted - far[left]) / (far[left + 1] - far[left])
            expected += share * (tar[left + 1] - tar[left])
        assert tar_at_far(scores, same, [wanted], rule="interpolated")[wanted] == pytest.approx(
            expected, abs=1e-9
        )


@given(rows=scored, fmr=st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]))
def test_operating_points(rows: Rows, fmr: float) -> None:
    scores, same = columns(rows)
    pairs = sort_scores(scores, same)
    (point,) = operating_points(pairs, [fmr])
    accepted = scores >= point.threshold
    assert point.fmr == accepted[~same].double().mean()
    assert point.fnmr == pytest.approx((~accepted)[same].double().mean())
    assert point.false_matches == int(accepted[~same].sum())
    assert point.fmr <= fmr
    # No lower threshold will do.
    lower = scores[~same][scores[~same] < point.threshold]
    if len(lower):
        assert (scores >= lower.max())[~same].double().mean() > fmr
    assert transfer(pairs, pairs, [fmr]) == [point]


def test_the_rule_of_30() -> None:
    scores = torch.linspace(0, 1, 3100)
    same = torch.zeros(3100, dtype=torch.bool)
    same[:100] = True
    points = operating_points(sort_scores(scores, same), [1e-2, 9e-3])
    assert [point.supported for point in points] == [True, False]
    assert [point.false_matches for point in points] == [30, 27]


@given(rows=scored)
def test_det_curve(rows: Rows) -> None:
    scores, same = columns(rows)
    far, frr = det_curve(sort_scores(scores, same))
    assert far[-1] == 1
    assert (far.diff() <= 0).all() or (far.diff() >= 0).all()
    points = {
        (float((scores[~same] >= t).double().mean()), float((scores[same] < t).double().mean()))
        for t in scores
    }
    for f, r in zip(far.tolist(), frr.tolist(), strict=True):
        assert any(abs(f - a) < 1e-12 and abs(r - b) < 1e-12 for a, b in points)


def loop_exact(distance: list[float], same: list[bool], blocks: list[list[int]]) -> list[float]:
    """Every way to part the others, first maximum; the held-out accuracy."""
    found = sorted(set(distance))
    thresholds = [found[0] - 1, *((a + b) / 2 for a, b in itertools.pairwise(found))]
    thresholds.append(found[-1] + 1)
    accuracies = []
    for block in blocks:
        others = [i for i in range(len(same)) if i not in block] or block
        rights = [sum((distance[i] < t) == same[i] for i in others) for t in thresholds]
        t = thresholds[rights.index(max(rights))]
        accuracies.append(sum((distance[i] < t) == same[i] for i in block) / len(block))
    return accuracies


@given(rows=scored, folds=st.integers(2, 5))
def test_exact_and_in_sample_thresholds(rows: Rows, folds: int) -> None:
    assume(folds <= len(rows))
    distance, same = columns(rows)
    distance = distance.double()
    blocks = [b.tolist() for b in torch.arange(len(same)).tensor_split(folds)]
    exact = fold_accuracy(bin_by_threshold(distance, same, folds, "exact"))
    expected = loop_exact(distance.tolist(), same.tolist(), blocks)
    assert exact.accuracy.tolist() == pytest.approx(expected)
    whole = loop_exact(distance.tolist(), same.tolist(), [list(range(len(same)))])
    in_sample = fold_accuracy(bin_by_threshold(distance, same, folds, "in_sample"))
    sizes = torch.tensor([len(b) for b in blocks]).double()
    assert float((in_sample.accuracy * sizes).sum() / sizes.sum()) == pytest.approx(whole[0])
    best = max(float(((distance < t) == same).double().mean()) for t in [*(distance + 0.5), -99.0])
    assert whole[0] == pytest.approx(best)


@given(rows=scored, seed=st.integers(0, 99))
def test_weights_are_repeated_pairs(rows: Rows, seed: int) -> None:
    distance, same = columns(rows)
    distance = (distance.double() + 6) / 3
    weight = torch.randint(1, 4, (len(same),), generator=torch.Generator().manual_seed(seed))
    pairs = bin_by_threshold(distance, same, 2, "grid")
    weighted = fold_accuracy(pairs, weight.double())
    repeated = fold_accuracy(
        pairs._replace(
            bins=pairs.bins.repeat_interleave(weight),
            fold=pairs.fold.repeat_interleave(weight),
            same=same.repeat_interleave(weight),
        )
    )
    assert weighted.accuracy.tolist() == pytest.approx(repeated.accuracy.tolist())
    assert weighted.threshold.tolist() == repeated.threshold.tolist()


@given(rows=scored, folds=st.integers(2, 4))
def test_insightface_interpolation(rows: Rows, folds: int) -> None:
    """insightface's calculate_val, one threshold at a time; interpolation at the first crossing."""
    assume(folds <= len(rows))
    distance, same = columns(rows)
    distance = (distance.double() + 6) / 4 + 0.0005
    grid = [k * 0.001 for k in range(4000)]
    blocks = [b.tolist() for b in torch.arange(len(same)).tensor_split(folds)]
    for far in (0.1, 0.5):
        tars = []
        for block in blocks:
            others = [
                float(distance[i]) for i in range(len(same)) if i not in block and not same[i]
            ]
            genuine = [float(distance[i]) for i in block if same[i]]
            if not others or not genuine:
                continue
            accepted = [sum(d < t for d in others) / len(others) for t in grid]
            threshold = 0.0
            for k, value in enumerate(accepted):
                if value >= far:
                    step = (far - accepted[k - 1]) / (value - accepted[k - 1])
                    threshold = grid[k - 1] + step * 0.001
                    break
            tars.append(sum(d < threshold for d in genuine) / len(genuine))
        expected = {far: sum(tars) / len(tars)} if tars else {}
        assert tar_at_far_over_folds(distance, same, folds, (far,)) == pytest.approx(expected)


def test_rules_are_named() -> None:
    embeddings, same = torch.randn(40, 4), torch.tensor([True, False] * 10)
    strict, optimistic = (
        evaluate_pairs(embeddings, same, thresholds=r) for r in ("exact", "in_sample")
    )
    assert optimistic.accuracy >= strict.accuracy
    assert int(optimistic.correct.sum()) == round(20 * optimistic.accuracy)
    with pytest.raises(InputError, match="unknown thresholds rule 'best'.*exact, grid, in_sample"):
        evaluate_pairs(embeddings, same, thresholds="best")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown rule 'linear'.*interpolated, nearest"):
        tar_at_far(torch.tensor([0.0, 1]), torch.tensor([True, False]), [0.1], rule="linear")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"a rate must be in \[0, 1\], got 1.5"):
        tar_at_far(torch.tensor([0.0, 1]), torch.tensor([True, False]), [1.5])
    with pytest.raises(InputError, match="there is no genuine pair among 0"):
        tar_at_far(torch.empty(0), torch.empty(0), [0.1])
