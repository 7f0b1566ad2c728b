"""Pairs of one's own people: folds of equal halves, with people of their own."""

import os
from pathlib import Path

import numpy as np
import pytest

from helpers.commands import marginface
from helpers.pictures import jpegs, make_folder
from marginface.data.pairs.drawing import fold_pairs
from marginface.data.pairs.verification_sets import load_pairs
from marginface.utils.errors import InputError

LABELS = np.repeat(np.arange(40), 6)


def test_folds() -> None:
    pairs, same = fold_pairs(LABELS, 200, 100, seed=1)
    people = LABELS[pairs]
    assert ((people[:, 0] == people[:, 1]) == same).all()
    assert len({tuple(sorted(pair)) for pair in pairs.tolist()}) == 300
    seen: set[int] = set()
    for fold in range(10):
        part = slice(30 * fold, 30 * fold + 30)
        assert same[part].sum() == 20
        assert 0 < same[part][:15].sum() < 15, "both kinds are mixed"
        of_fold = set(people[part].ravel().tolist())
        assert not seen & of_fold
        seen |= of_fold
    again, _ = fold_pairs(LABELS, 200, 100, seed=1)
    other, _ = fold_pairs(LABELS, 200, 100, seed=2)
    assert (again == pairs).all()
    assert (other != pairs).any()


def test_all_pairs_there_are() -> None:
    pairs, same = fold_pairs(np.repeat(np.arange(20), 2), 20, 40, seed=0)
    assert same.sum() == 20
    assert len({tuple(sorted(pair)) for pair in pairs.tolist()}) == 60


@pytest.mark.parametrize(
    ("labels", "genuine", "impostor", "message"),
    [
        (LABELS, 25, 10, "--genuine must be a multiple of 10, one part a fold; got 25"),
        (LABELS, 10, 0, "--impostor must be a multiple of 10, one part a fold; got 0"),
        (LABELS, 10_000, 10, "has 60 genuine pairs, --genuine=10000 needs 1000; .* most 600"),
        (LABELS, 10, 10_000, "has 216 impostor pairs, --impostor=10000 needs 1000"),
        (np.arange(30), 10, 10, "has 0 genuine pairs"),
        (LABELS[:114], 10, 10, "19 identities are too few for 10 folds"),
    ],
)
def test_too_much(labels: np.ndarray, genuine: int, impostor: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fold_pairs(labels, genuine, impostor, seed=0)


def test_the_command(tmp_path: Path) -> None:
    make_folder(tmp_path / "faces", [3] * 20, size=16)
    arguments = ["pairs", str(tmp_path / "faces"), str(tmp_path / "pairs.csv")]
    done = marginface(*arguments, "--genuine", "20", "--impostor", "30", "--seed", "3")
    assert done.exit_code == 0, done.stderr
    assert "50 pairs of 20 identities written" in done.stdout
    pairs = load_pairs(tmp_path / "pairs.csv", root=tmp_path / "faces", image_size=16)
    assert (len(pairs.same), int(pairs.same.sum())) == (50, 20)
    assert pairs[0][0].shape == (3, 16, 16)
    again = marginface(*arguments)
    assert again.exit_code == 2
    assert "pairs.csv exists; choose another name" in again.stderr


@pytest.mark.parametrize("prefix", ["#", os.fsdecode(b"\xe9")])
def test_names_of_any_kind_are_read_back(prefix: str, tmp_path: Path) -> None:
    """One that begins like a comment, and one that is no UTF-8."""
    faces, pairs = tmp_path / "faces", tmp_path / "pairs.csv"
    for person in range(20):
        folder = faces / f"{prefix}{person:02d}"
        folder.mkdir(parents=True)
        for number in range(2):
            (folder / f"{number}.jpg").write_bytes(jpegs(1)[0])
    done = marginface("pairs", str(faces), str(pairs), "--genuine", "20", "--impostor", "40")
    assert done.exit_code == 0, done.stderr
    found = load_pairs(pairs, root=str(faces))
    assert (len(found.same), int(found.same.sum())) == (60, 20)
