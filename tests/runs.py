"""Reading and composing runs in tests."""

import csv
from pathlib import Path
from typing import Any

import hydra

from marginface.config import config_dir, to_plain


def compose(*overrides: str, run_dir: Path | str = ".") -> dict[str, Any]:
    """The resolved training configuration the command line would give."""
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = hydra.compose("train", overrides=list(overrides))
    config.paths.run_dir = str(run_dir)
    return to_plain(config)


def rows(run_dir: Path) -> list[dict[str, str]]:
    """metrics.csv as it is on disk."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def losses(run_dir: Path) -> dict[int, float]:
    """Training loss by step; a step that stands twice is an error."""
    table = [(int(row["step"]), float(row["train/loss"])) for row in rows(run_dir)]
    assert len({step for step, _ in table}) == len(table), "a step stands twice in metrics.csv"
    return dict(table)
