"""Printing on rank zero, warnings, progress bars."""

import logging
import os
import sys
import warnings

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

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
    """A bar with counts and the time that remains; on stderr."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),  # stdout is for what was found
    )
