"""Templates and their scores against insightface's values and loops over single images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marginface.metrics import templates
from marginface.metrics.roc import tar_at_far
from marginface.metrics.templates import aggregate_templates, score_templates, weigh_features
from marginface.utils.errors import InputError


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
def test_golden(golden: Path, dtype: type, tolerance: float) -> None:
    arrays = {
        key.removeprefix("ijb."): value
        for key, value in np.load(golden / "evaluation.npz").items()
        if key.startswith("ijb.")
    }
    features = weigh_features(arrays["feature"].astype(dtype), arrays["det_score"])
    found, ids = aggregate_templates(features, arrays["template_id"], arrays["media_id"])
    assert ids.tolist() == arrays["unique_template"].tolist()
    scale = np.abs(arrays["template_feature"]).max()
    error = np.abs(found.numpy() - arrays["template_feature"]).max()
    assert error <= tolerance * scale
    scores = score_templates(found, ids, arrays["p1"], arrays["p2"])
    assert np.abs(scores.numpy() - arrays["score"]).max() <= tolerance
    assert tar_at_far(scores, arrays["label"], [1e-3]) == tar_at_far(
        arrays["score"], arrays["label"], [1e-3]
    )


def loop_templates(
    features: np.ndarray, template_id: list[int], media_id: list[int]
) -> dict[int, np.ndarray]:
    found = {}
    for template in sorted(set(template_id)):
        total = np.zeros(features.shape[1])
        mine = [i for i, t in enumerate(template_id) if t == template]
        for medium in {media_id[i] for i in mine}:
            frames = [features[i] for i in mine if media_id[i] == medium]
            total += sum(frames) / len(frames)
        norm = np.sqrt((total**2).sum())
        found[template] = total / norm if norm > 1e-12 else total
    return found


@given(
    ids=st.lists(st.tuples(st.integers(-3, 5), st.integers(0, 3)), min_size=1, max_size=40),
    seed=st.integers(0, 99),
    spread=st.sampled_from([1, 10_000_000]),
)
def test_aggregation_and_scores_equal_loops(
    ids: list[tuple[int, int]], seed: int, spread: int
) -> None:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((len(ids), 6))
    template_id, media_id = [spread * t for t, _ in ids], [m for _, m in ids]
    expected = loop_templates(features, template_id, media_id)
    found, known = aggregate_templates(
        torch.from_numpy(features), torch.tensor(template_id), torch.tensor(media_id)
    )
    assert known.tolist() == list(expected)
    np.testing.assert_allclose(found.numpy(), np.stack(list(expected.values())), atol=1e-12)
    one, other = (rng.choice(known.numpy(), 50) for _ in range(2))
    order = torch.from_numpy(rng.permutation(len(known)))
    for tile, cost, pairs in ((2, 0, 7), (2, 1000, 7), (1024, 64, 1 << 20), (4, 2, 3)):
        with pytest.MonkeyPatch.context() as patch:  # multiplied, fetched, both
            patch.setattr(templates, "_TILE", tile)
            patch.setattr(templates, "_FETCH_COST", cost)
            patch.setattr(templates, "_PAIRS", pairs)
            scores = score_templates(found[order], known[order], one, other)
        for a, b, score in zip(one.tolist(), other.tolist(), scores.tolist(), strict=True):
            assert score == pytest.approx(float(expected[a] @ expected[b]), abs=1e-12)


def test_weights() -> None:
    features = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    assert weigh_features(features, torch.tensor([0.5, 1])).tolist() == [[1.5, 2], [0, 2]]
    unit = weigh_features(features, keep_norm=False)
    torch.testing.assert_close(unit, torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    with pytest.raises(InputError, match="2 features need as many detector scores"):
        weigh_features(features, torch.ones(3))


def test_faults() -> None:
    features, ids = torch.eye(3), torch.tensor([7, 8, 9])
    with pytest.raises(InputError, match="template ids must be 3 whole numbers"):
        aggregate_templates(features, ids[:2], ids)
    with pytest.raises(InputError, match="media ids must be 3 whole numbers.*float32"):
        aggregate_templates(features, ids, torch.ones(3))
    with pytest.raises(InputError, match=r"features must be \(N, D\) with N > 0, got \(0, 3\)"):
        aggregate_templates(features[:0], ids[:0], ids[:0])
    with pytest.raises(InputError, match="1 of 3 features are NaN"):
        aggregate_templates(torch.tensor([[0.0], [1], [float("nan")]]), ids, ids)
    with pytest.raises(InputError, match="pair 1 names template 4, which has no images"):
        score_templates(features, ids, torch.tensor([7, 7, 8]), torch.tensor([8, 4, 9]))
    with pytest.raises(InputError, match="pair 0 names template -5, which has no images"):
        score_templates(features, 10**9 * ids, torch.tensor([-5]), torch.tensor([7]))
    with pytest.raises(InputError, match="template id 8 has two features"):
        score_templates(features, torch.tensor([7, 8, 8]), ids, ids)
    with pytest.raises(InputError, match="second templates must be 2 whole numbers"):
        score_templates(features, ids, ids[:2], ids)
    assert len(score_templates(features, ids, ids[:0], ids[:0])) == 0
