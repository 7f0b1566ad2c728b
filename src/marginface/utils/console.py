"""Printing on rank zero, warnings, progress bars."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")

# Advice of Lightning and torch that does not apply here; everything else stays visible.
_IRRELEVANT_ADVICE = (
    ".*does not have many workers.*",  # data.num_workers is the user's choice
    ".*This DataLoader will create.*",  # we say so with the name of the setting
    ".*your dataloader is not resumable.*",  # ours is: GlobalBatchSampler(start=)
    ".*is smaller than the logging interval.*",
    ".*exists and is not empty.*",  # resuming means writing into the same folder
    ".*isinstance.treespec.*",
    ".*sync_dist=True.*",  # every rank logs the same value, from the gathered table
    ".*across ranks is zero.*",  # a run without verification sets
)

_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def rank_zero_print(message: str) -> None:
    """Print a line."""
    if is_first_process():
        print(message, flush=True)


def print_warning(message: str) -> None:
    """Print a line to stderr that is meant to be noticed, from whichever process this is."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def rank_zero_warn(message: str) -> None:
    """The same, from the first process only."""
    if is_first_process():
        print_warning(message)


def is_first_process() -> bool:
    """Lightning's rank where it runs; importing it for that would take three seconds."""
    lightning = sys.modules.get("lightning_utilities.core.rank_zero")
    rank = getattr(getattr(lightning, "rank_zero_only", None), "rank", None)
    if rank is None:
        rank = next((int(os.environ[v]) for v in _RANK_VARIABLES if v in os.environ), 0)
    return rank == 0


def silence_lightning() -> None:
    """Hide Lightning's notes on its own settings; its warnings and errors stay."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in _IRRELEVANT_ADVICE:
        warnings.filterwarnings("ignore", message)


def progress_bar() -> Progress:
    """A bar with counts and the time that remains, on stderr; in a file a line now and then."""
    console = Console(stderr=True)  # stdout is for what was found
    if not console.is_terminal:
        return _ProgressLines(console=console, disable=True, auto_refresh=False)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def tracked(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The same items, with a bar of how many of them were taken."""
    with progress_bar() as bar:
        task = bar.add_task(what, total=total)
        for item in items:
            yield item
            bar.advance(task)


class _ProgressLines(Progress):
    """A line of what takes over five seconds, then one every ten: a bar in a file is unreadable."""

    _FIRST, _EVERY = 5.0, 10.0

    def add_task(self, description: str, **settings: Any) -> TaskID:  # type: ignore[override]
        return super().add_task(description, begun=time.monotonic(), **settings)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        self._print(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        super().advance(task_id, advance)
        self._print(task_id)

    def _print(self, task_id: TaskID) -> None:
        task = next(task for task in self.tasks if task.id == task_id)
        now = time.monotonic()
        begun = task.fields["begun"]
        said = task.fields.get("said", begun + self._FIRST - self._EVERY)
        if task.total is None or not 0 < task.completed < task.total or now - said < self._EVERY:
            return
        task.fields["said"] = now
        left = (now - begun) / task.completed * (task.total - task.completed)
        share = task.completed / task.total
        print(
            f"{task.description}: {task.completed:,.0f} of {task.total:,.0f} ({share:.0%}), "
            f"{timedelta(seconds=round(left))} left",
            file=sys.stderr,
            flush=True,
        )
