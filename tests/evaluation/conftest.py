"""Benchmarks of each kind, and an evaluation on all of them."""

from pathlib import Path

import pytest

from helpers.benchmark_sets import write_gallery, write_ijb, write_pairs_csv, write_tinyface
from helpers.evaluations import everything, settings
from marginface.evaluation.run import evaluate


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One benchmark of each kind."""
    root = tmp_path_factory.mktemp("sets")
    write_pairs_csv(root / "pairs")
    write_ijb(root / "ijb")
    write_tinyface(root / "tinyface")
    write_gallery(root / "gallery", strangers=True)
    return root


@pytest.fixture(scope="session")
def evaluated(run: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    config = settings(f"checkpoint={run}", *everything(sets), "thumbnails=true", folder=folder)
    evaluate(config)
    return folder
