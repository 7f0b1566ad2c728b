"""How far a run is: running, stopped or done."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from marginface.runs.folder import RunFolder
from marginface.utils.files import read_json, write_json
from marginface.utils.process_identity import is_alive, this_process

_SILENT = 600.0  # seconds without a sign of life after which a run elsewhere counts as stopped

State = Literal["running", "stopped", "done"]


class Status(NamedTuple):
    """What is known of a run without asking it.

    Attributes:
        state: `stopped` also when its process is gone without a word.
        step: optimizer steps done, as far as they are logged or noted.
        total_steps: that it is meant to have; None when not known.
        reason: why it stopped, where it said so.
        changed: when it last wrote something, seconds since the epoch.
    """

    state: State
    step: int
    total_steps: int | None
    reason: str
    changed: float


def note_status(run: RunFolder, state: State, **facts: Any) -> None:
    """Write down how far a run is; facts not given stay as they were noted.

    Args:
        run: its folder.
        state: of the run, which is carried out by this process.
        facts: step, total_steps, reason, pruned.
    """
    before = read_json(run.status)
    now = datetime.now().isoformat(timespec="seconds")
    fixed = {"state": state, "reason": "", "time": now, "process": this_process()}
    write_json(run.status, before | fixed | facts)


def is_pruned(run: RunFolder) -> bool:
    """Whether a sweeper ended the run before its time."""
    return bool(read_json(run.status).get("pruned"))


def read_status(run: RunFolder) -> Status:
    """How far a run is; one of an older version counts as done when it has a result."""
    noted: dict[str, Any] = read_json(run.status)
    changed = _changed(run)
    state: State = noted.get("state", "done" if "train/loss" in run.read_result() else "stopped")
    if state == "running":
        alive = is_alive(noted["process"])
        if alive is False or (alive is None and time.time() - changed > _SILENT):
            state = "stopped"
    step = max(int(noted.get("step") or 0), _last_step(run.metrics))
    return Status(state, step, noted.get("total_steps"), str(noted.get("reason", "")), changed)


def _changed(run: RunFolder) -> float:
    files = (run.metrics, run.status, run.result, run.last, run.config)
    return max((file.stat().st_mtime for file in files if file.is_file()), default=0.0)


def _last_step(metrics: Path) -> int:
    """Steps done by the last whole row of metrics.csv, which numbers them from 0."""
    if not metrics.is_file():
        return 0
    with metrics.open("rb") as file:
        head = file.readline()
        size = file.seek(0, 2)
        file.seek(max(len(head), size - 65536))
        lines = file.read().split(b"\n")[:-1]
    # Where reading began in the middle of a line, it is the first that is not whole.
    number = head.split(b",").index(b"step") if b"step" in head.split(b",") else 0
    for line in reversed(lines):
        cells = line.split(b",")
        if len(cells) == len(head.split(b",")) and cells[number].isdigit():
            return int(cells[number]) + 1
    return 0
