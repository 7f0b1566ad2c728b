"""An evaluation on benchmarks of each kind."""

from pathlib import Path

import pytest

from helpers.evaluations import everything, settings
from marginface.evaluation.run import evaluate


@pytest.fixture(scope="session")
def evaluated(run: Path, sets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    config = settings(f"checkpoint={run}", *everything(sets), "thumbnails=true", folder=folder)
    evaluate(config)
    return folder
