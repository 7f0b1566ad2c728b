"""A sweep is one complete run per job and one table."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runs import losses

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_three_heads_and_one_table(tiny_run: list[str], tmp_path: Path, command: Command) -> None:
    sweep = ["head=x2softmax,arcface,cosface", f"hydra.sweep.dir={tmp_path}"]
    done = command("train.py", "-m", *tiny_run, "trainer.max_steps=3", *sweep)
    assert done.returncode == 0, done.stderr
    for number, head in enumerate(["x2softmax", "arcface", "cosface"]):
        run = tmp_path / str(number)
        assert len(losses(run)) == 3
        assert f"name: {head}" in (run / "config.yaml").read_text()
        assert (run / "checkpoints" / "last.ckpt").is_file()
    table = read(tmp_path / "comparison.csv")
    assert [row["head.name"] for row in table] == ["x2softmax", "arcface", "cosface"]
    for number, row in enumerate(table):
        result = json.loads((tmp_path / str(number) / "result.json").read_text())
        assert float(row["val/heldout/accuracy"]) == result["val/heldout/accuracy"]
    assert list(table[0])[:3] == ["run", "head.name", "val/heldout/accuracy"], "only what differs"
    assert "comparison" in done.stdout
    assert not any(p.name.startswith("3") for p in tmp_path.iterdir())
    again = command("-c", "from marginface.cli.main import app; app()", "compare", str(tmp_path))
    assert again.returncode == 0
    assert "arcface" in again.stdout


@pytest.mark.slow
def test_jobs_with_different_numbers_of_processes(
    tiny_run: list[str], tmp_path: Path, command: Command
) -> None:
    """What goes wrong silently when jobs share a process; a failed job stops no other."""
    sweep = ["trainer=ddp_gloo", "trainer.devices=1,4,2", f"hydra.sweep.dir={tmp_path}"]
    done = command("train.py", "-m", *tiny_run, "trainer.max_steps=2", *sweep)
    assert done.returncode == 1
    assert "jobs [1] failed" in done.stderr
    assert "cannot be split over 4 processes" in done.stderr
    worlds = [json.loads((tmp_path / n / "runinfo.json").read_text())["world_size"] for n in "02"]
    assert worlds == [1, 2]
    assert [len(losses(tmp_path / n)) for n in "02"] == [2, 2]
