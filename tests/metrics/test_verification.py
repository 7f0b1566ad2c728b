"""Pairs and ROC against insightface's numbers, scikit-learn and slow references."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from marginface.metrics.roc import area_under, equal_error_rate, roc_curve, tar_at_far
from marginface.metrics.scores import sort_scores
from marginface.metrics.verification import evaluate_pairs
from marginface.utils.errors import InputError


def test_golden_pairs(golden: Path) -> None:
    arrays = np.load(golden / "evaluation.npz")
    expected = json.loads((golden / "evaluation.json").read_text())["pairs"]
    result = evaluate_pairs(
        torch.from_numpy(arrays["pairs.embedding"]), torch.from_numpy(arrays["pairs.same"])
    )
    assert result.fold_accuracy == expected["accuracy_folds"]
    assert result.accuracy == pytest.approx(expected["accuracy_mean"], abs=1e-12)
    assert result.accuracy_std == pytest.approx(expected["accuracy_std"], abs=1e-12)


def test_golden_tar_at_far(golden: Path) -> None:
    arrays = np.load(golden / "evaluation.npz")
    expected = json.loads((golden / "evaluation.json").read_text())["ijb"]["tar_at_far"]
    scores, labels = (torch.from_numpy(arrays[f"ijb.{key}"]) for key in ("score", "label"))
    tars = tar_at_far(scores, labels, [float(far) for far in expected])
    assert tars == {float(far): tar for far, tar in expected.items()}


def loop_folds(distance: list[float], same: list[bool], folds: int) -> tuple[list[float], float]:
    """insightface's rule, one threshold and one pair at a time."""
    thresholds = [k * 0.01 for k in range(400)]
    blocks = [block.tolist() for block in np.array_split(np.arange(len(same)), folds)]
    accuracies, chosen = [], []
    for block in blocks:
        others = [i for i in range(len(same)) if i not in block]
        best, best_threshold = -1.0, 0.0
        for threshold in thresholds:
            right = sum((distance[i] < threshold) == same[i] for i in others) / len(others)
            if right > best:
                best, best_threshold = right, threshold
        right = sum((distance[i] < best_threshold) == same[i] for i in block)
        accuracies.append(right / len(block))
        chosen.append(best_threshold)
    return accuracies, sum(1 - t / 2 for t in chosen) / folds


@given(seed=st.integers(0, 1000), pairs=st.integers(4, 30), folds=st.integers(2, 4))
def test_folds_equal_the_loop(seed: int, pairs: int, folds: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few directions, so that distances tie and fall on thresholds.
    embeddings = torch.randint(-1, 2, (2 * pairs, 3), generator=generator).double()
    embeddings[:, 0] += 2
    same = torch.rand(pairs, generator=generator) < 0.5
    assume(bool(same.any()) and not bool(same.all()))
    result = evaluate_pairs(embeddings, same, folds=folds)
    unit = torch.nn.functional.normalize(embeddings)
    distance = (unit[::2] - unit[1::2]).square().sum(1).tolist()
    accuracies, threshold = loop_folds(distance, same.tolist(), folds)
    assert result.fold_accuracy == pytest.approx(accuracies, abs=1e-12)
    assert result.threshold == pytest.approx(threshold, abs=1e-12)


scored = st.lists(
    st.tuples(st.integers(-6, 6).map(float), st.booleans()), min_size=2, max_size=60
).filter(lambda rows: len({same for _, same in rows}) == 2)


@given(rows=scored)
def test_roc_equals_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    scores, same = torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows])
    roc = roc_curve(scores, same)
    far, tar, threshold = sklearn_roc_curve(same.numpy(), scores.numpy())
    np.testing.assert_allclose(roc.far.numpy(), far, atol=1e-12)
    np.testing.assert_allclose(roc.tar.numpy(), tar, atol=1e-12)
    np.testing.assert_allclose(roc.threshold.numpy(), threshold)
    assert area_under(sort_scores(scores, same)) == pytest.approx(
        roc_auc_score(same.numpy(), scores.numpy())
    )
    for target, got in tar_at_far(scores, same, [0.0, 0.1, 0.5, 1.0]).items():
        reversed_gap = np.abs(far[::-1] - target)
        assert got == tar[::-1][np.argmin(reversed_gap)]


@given(rows=scored)
def test_equal_error_rate_balances_both_errors(rows: list[tuple[float, bool]]) -> None:
    scores, same = torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows])
    roc = roc_curve(scores, same)
    eer = equal_error_rate(sort_scores(scores, same))
    miss = 1 - np.interp(eer, roc.far.numpy(), roc.tar.numpy())
    vertical = (roc.far.diff() == 0).any()
    assert 0 <= eer <= 1
    assert math.isclose(miss, eer, abs_tol=1e-9) or bool(vertical)


def test_separable_pairs_are_perfect() -> None:
    genuine = torch.eye(8).repeat_interleave(2, 0)  # rows 2i and 2i + 1 are equal
    impostor = torch.eye(8).repeat(2, 1)  # no two neighbors are
    same = torch.tensor([True, False]).repeat_interleave(8)
    result = evaluate_pairs(torch.cat([genuine, impostor]), same, folds=2)
    assert result.auc == 1
    assert result.eer == 0
    assert result.tar_at_far[1e-3] == 1


def test_faults() -> None:
    embeddings, same = torch.randn(20, 4), torch.tensor([True, False] * 5)
    with pytest.raises(InputError, match=r"10 pairs need embeddings of shape \(20, D\)"):
        evaluate_pairs(embeddings[:19], same)
    with pytest.raises(InputError, match="folds must be between 2 and the 10 pairs, got 11"):
        evaluate_pairs(embeddings, same, folds=11)
    with pytest.raises(InputError, match="no impostor pair"):
        evaluate_pairs(embeddings, torch.ones(10, dtype=torch.bool))
    with pytest.raises(InputError, match="no genuine pair"):
        evaluate_pairs(embeddings, torch.zeros(10, dtype=torch.bool))
    embeddings[3, 1] = float("nan")
    with pytest.raises(InputError, match="1 of 20 embeddings are NaN"):
        evaluate_pairs(embeddings, same)
    with pytest.raises(InputError, match="3 scores for 2 labels"):
        roc_curve(torch.zeros(3), torch.tensor([True, False]))
    with pytest.raises(InputError, match="1 of 2 scores are NaN"):
        roc_curve(torch.tensor([0.0, float("nan")]), torch.tensor([True, False]))


def test_metric_names() -> None:
    result = evaluate_pairs(torch.randn(40, 4), torch.tensor([True, False] * 10))
    assert set(result.metrics()) == {
        "accuracy", "accuracy_std", "auc", "eer", "threshold", "tar@1e-3", "tar@1e-2", "tar@1e-1",
    }  # fmt: skip
