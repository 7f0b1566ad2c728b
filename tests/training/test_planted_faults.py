"""Runs with a planted fault get the warning that names it; a healthy run gets none."""

import time
from pathlib import Path

import numpy as np
import pytest

from helpers.runs import compose
from marginface.data import SyntheticFaces
from marginface.data.images import Pixels
from marginface.pages.run_data import read_run
from marginface.pages.run_warnings import run_warnings
from marginface.training.run import train

SMALL = [
    "trainer=cpu", "backbone.image_size=32", "data.dataset.identities=60",
    "data.dataset.images_per_identity=12", "data.val_identities=20", "data.val_pairs=400",
    "data.batch_size=24", "data.num_workers=0", "logger=csv", "callbacks.progress=null",
    "validate_untrained=false", "trainer.log_every_n_steps=2", "trainer.max_epochs=4",
    "optimizer.lr=0.02",
]  # fmt: skip


def warnings_of(folder: Path, *overrides: str) -> list[str]:
    train(compose(*SMALL, f"paths.cache_dir={folder}", *overrides, run_dir=folder / "run"))
    return run_warnings(read_run(folder / "run"))


@pytest.mark.slow
def test_a_healthy_run(tmp_path: Path) -> None:
    assert warnings_of(tmp_path) == []


@pytest.mark.slow
def test_a_learning_rate_that_is_far_too_high(tmp_path: Path) -> None:
    found = warnings_of(tmp_path, "optimizer.lr=20")
    assert any("lower optimizer.lr" in warning for warning in found), found


@pytest.mark.slow
def test_shuffled_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = SyntheticFaces.__init__

    def shuffled(self: SyntheticFaces, *arguments: object, **options: object) -> None:
        make(self, *arguments, **options)  # type: ignore[arg-type]
        self.labels = np.random.default_rng(0).permutation(self.labels)

    monkeypatch.setattr(SyntheticFaces, "__init__", shuffled)
    found = warnings_of(tmp_path)
    assert any("Labels that do not belong to the images" in warning for warning in found), found


@pytest.mark.slow
def test_one_worker_on_slow_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill = SyntheticFaces.fill

    def slow(self: SyntheticFaces, index: int, out: Pixels) -> None:
        time.sleep(0.01)
        fill(self, index, out)

    monkeypatch.setattr(SyntheticFaces, "fill", slow)
    found = warnings_of(tmp_path, "data.num_workers=1", "trainer.max_epochs=2")
    assert any("waiting for data: raise data.num_workers (it was 1)" in w for w in found), found
