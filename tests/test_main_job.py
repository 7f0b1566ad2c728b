"""What a stranger's first command does: train on synthetic faces, verify on unseen identities."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.slow
@pytest.mark.first
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "shorter", [["trainer.max_epochs=4"], pytest.param([], marks=pytest.mark.long)]
)
def test_the_default_run_learns_faces(command: Command, tmp_path: Path, shorter: list[str]) -> None:
    start = time.monotonic()
    done = command(
        "train.py",
        f"hydra.run.dir={tmp_path}",
        *shorter,
        timeout=900,
    )
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert 0.85 <= result["val/heldout/accuracy"] <= 0.98
    assert result["untrained/heldout/accuracy"] < result["val/heldout/accuracy"] - 0.1
    for part in ("untrained", "W&B runs offline", str(tmp_path)):
        assert part in done.stdout
    # Far above what it takes, so that only a broken run fails; benchmarks measure speed.
    assert seconds < 800


@pytest.mark.long
def test_learning_by_heart(command: Command, tmp_path: Path) -> None:
    done = command("train.py", "debug=overfit", f"hydra.run.dir={tmp_path}", timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "result.json").read_text())["train/accuracy"] == 1
