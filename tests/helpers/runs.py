"""Composing, starting, killing and reading runs in tests."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import hydra

from helpers.paths import ROOT
from marginface.config.resolve import config_dir, to_plain


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


@contextmanager
def started(
    arguments: list[str], run_dir: Path, *before: str, on_gpu: bool = False
) -> "Iterator[subprocess.Popen[str]]":
    """A run in a session of its own, all of which is killed in the end.

    Args:
        before: options of the interpreter, before train.py: "-m", "torch.distributed.run".
        on_gpu: whether it sees the GPUs of this machine.
    """
    process = subprocess.Popen(
        [sys.executable, *before, "train.py", *arguments, f"hydra.run.dir={run_dir}"],
        cwd=ROOT,
        env=os.environ | ({} if on_gpu else {"CUDA_VISIBLE_DEVICES": ""}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # all of it has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Until the condition holds; an error when the run ends before or two minutes pass."""
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline, "the run is too slow to be interrupted"
        time.sleep(0.005)


def has_rows(run_dir: Path, number: int) -> Callable[[], bool]:
    """Whether metrics.csv has at least so many rows."""
    path = run_dir / "metrics.csv"
    return lambda: path.is_file() and len(path.read_text().splitlines()) > number


def kill_after(
    rows_written: int, arguments: list[str], run_dir: Path, *, on_gpu: bool = False
) -> None:
    """Start a run and SIGKILL all its processes as soon as metrics.csv has so many rows."""
    with started(arguments, run_dir, on_gpu=on_gpu) as process:
        wait_until(has_rows(run_dir, rows_written), process)
