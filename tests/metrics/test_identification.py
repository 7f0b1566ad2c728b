"""Searches against loops over single scores."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marginface.metrics.identification import distractor_identification, identification, search
from marginface.metrics.identification_intervals import identification_intervals
from marginface.utils.errors import InputError


def loop_identification(
    gallery: np.ndarray,
    owners: list[int],
    probes: np.ndarray,
    subjects: list[int],
    ranks: list[int],
    fpirs: list[float],
) -> tuple[dict[int, float], dict[float, float]]:
    positions, leads, best = [], [], []
    for probe, subject in zip(probes, subjects, strict=True):
        scores = [float(probe @ entry) for entry in gallery]
        own = [s for s, o in zip(scores, owners, strict=True) if o == subject]
        others = [s for s, o in zip(scores, owners, strict=True) if o != subject]
        if own:
            positions.append(1 + sum(s >= max(own) for s in others))
            leads.append((max(own), max(own) > max(others, default=-math.inf)))
        else:
            best.append(max(scores))
    rank = {k: sum(p <= k for p in positions) / len(positions) for k in ranks}
    tpir = {}
    for fpir in fpirs:
        # Lower the threshold through all scores while few enough strangers are found.
        candidates = sorted({s for s, _ in leads} | set(best) | {math.inf}, reverse=True)
        allowed = [t for t in candidates if sum(b >= t for b in best) <= fpir * len(best) + 1e-9]
        tpir[fpir] = sum(lead and s >= min(allowed) for s, lead in leads) / len(leads)
    return rank, tpir


people = st.lists(st.integers(0, 6), min_size=1, max_size=25)


@given(owners=people, subjects=people, seed=st.integers(0, 99), block=st.integers(1, 9))
def test_equals_the_loop(owners: list[int], subjects: list[int], seed: int, block: int) -> None:
    """Few directions, so that scores tie; blocks that nothing divides."""
    rng = np.random.default_rng(seed)
    directions = np.eye(4)
    gallery = directions[rng.integers(0, 4, len(owners))]
    probes = directions[rng.integers(0, 4, len(subjects))]
    is_open = not set(subjects) <= set(owners)
    fpirs = [0.0, 0.3, 1.0] if is_open else []
    arguments = (
        torch.from_numpy(gallery), torch.tensor(owners), torch.from_numpy(probes),
        torch.tensor(subjects), [1, 2, 3], fpirs,
    )  # fmt: skip
    if not set(subjects) & set(owners):
        with pytest.raises(InputError, match="none of the .* probes shows anybody in the gallery"):
            identification(*arguments)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("marginface.metrics.identification._GALLERY", block)
        patch.setattr("marginface.metrics.identification._PROBES", block + 1)
        result = identification(*arguments)
    rank, tpir = loop_identification(gallery, owners, probes, subjects, [1, 2, 3], fpirs)
    assert result.rank == pytest.approx(rank)
    assert result.tpir_at_fpir == pytest.approx(tpir)
    assert result.mated + result.non_mated == len(subjects)
    estimates = identification_intervals([result, result], np.array(subjects), replicates=20)
    assert {name: e.value for name, e in estimates.items()} == pytest.approx(result.metrics())
    assert all(e.low <= e.value <= e.high for e in estimates.values())


def test_a_collapsed_network_finds_nobody() -> None:
    ones = torch.ones(5, 3)
    result = identification(ones, torch.arange(5), ones, torch.arange(5))
    assert result.rank == {1: 0.0, 5: 1.0, 10: 1.0}
    assert result.tpir_at_fpir == {}


@pytest.mark.parametrize("seed", range(6))
def test_rounding_is_no_victory(seed: int) -> None:
    same = torch.randn(512, generator=torch.Generator().manual_seed(seed)).expand(1000, 512)
    rates = distractor_identification(same[:4], torch.zeros(4), same)
    assert rates == {1: 0.0, 5: 0.0, 10: 0.0}


@given(seed=st.integers(0, 99), k=st.integers(1, 7), block=st.integers(1, 9))
def test_search_is_a_sort(seed: int, k: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    probes, gallery = rng.standard_normal((7, 5)), rng.standard_normal((23, 5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("marginface.metrics.identification._GALLERY", block)
        patch.setattr("marginface.metrics.identification._PROBES", 3)
        scores, places = search(torch.from_numpy(probes), torch.from_numpy(gallery), k)
    order = np.argsort(-(probes @ gallery.T), axis=1)[:, :k]
    assert places.tolist() == order.tolist()
    expected = np.take_along_axis(probes @ gallery.T, order, 1)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-12)


@given(subjects=st.lists(st.integers(0, 3), min_size=5, max_size=12), seed=st.integers(0, 99))
def test_distractors_equal_the_loop(subjects: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    directions = np.eye(3)
    features = directions[rng.integers(0, 3, len(subjects))]
    distractors = directions[rng.integers(0, 3, 6)] + 0.1 * rng.integers(0, 2, (6, 3))
    unit = distractors / np.linalg.norm(distractors, axis=1, keepdims=True)
    positions = [
        1 + sum(features[i] @ d >= features[i] @ features[j] for d in unit)
        for i in range(len(subjects))
        for j in range(len(subjects))
        if i != j and subjects[i] == subjects[j]
    ]
    rates = distractor_identification(
        torch.from_numpy(features), torch.tensor(subjects), torch.from_numpy(distractors), [1, 3]
    )
    assert rates == pytest.approx({k: np.mean(np.array(positions) <= k) for k in (1, 3)})


def test_faults() -> None:
    gallery, owners = torch.eye(3), torch.tensor([1, 2, 3])
    with pytest.raises(InputError, match=r"gallery: expected \(N, D\) with N > 0, got \(0, 3\)"):
        identification(gallery[:0], owners[:0], gallery, owners)
    with pytest.raises(InputError, match="probe subject 9 is not in the gallery .1 of 3 probes"):
        identification(gallery, owners, gallery, torch.tensor([1, 9, 3]))
    with pytest.raises(InputError, match="probe subject eve is not in the gallery"):
        identification(
            gallery, np.array(["ann", "bob", "cy"]), gallery, np.array(["ann", "eve", "cy"])
        )
    with pytest.raises(InputError, match="TPIR at FPIR needs probes of subjects that are not"):
        identification(gallery, owners, gallery, owners, fpirs=[0.1])
    with pytest.raises(InputError, match="gallery features are 3 wide and probe features 2"):
        identification(gallery, owners, torch.ones(3, 2), owners)
    with pytest.raises(InputError, match="3 probe features need as many subjects"):
        identification(gallery, owners, gallery, owners[:2])
    with pytest.raises(InputError, match="1 of 3 probes are NaN"):
        identification(
            gallery, owners, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, math.nan]]), owners
        )
    with pytest.raises(InputError, match="ranks must be whole numbers from 1"):
        identification(gallery, owners, gallery, owners, ranks=[0])
    with pytest.raises(InputError, match="k must be between 1 and the 3 gallery entries, got 4"):
        search(gallery, gallery, 4)
    with pytest.raises(InputError, match="none of the 3 probes has another image"):
        distractor_identification(gallery, owners, gallery)
