"""`marginface compare`: finished runs, a sweep, or evaluations next to each other."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from marginface.cli.errors import clear_errors
from marginface.runs.comparison import compare_runs, run_folders


def compare_command(
    runs: Annotated[
        list[Path], typer.Argument(help="run folders, a sweep folder, or evaluation folders")
    ],
    csv: Annotated[Path | None, typer.Option(help="of runs: also write the numbers here")] = None,
    html: Annotated[
        Path | None, typer.Option(help="of evaluations: the page; default in logs/comparisons")
    ] = None,
) -> None:
    """Compare finished runs (settings, metrics) or evaluations (metrics, paired differences)."""
    # Not needed by the other commands, and slow to import.
    from marginface.evaluation.comparison import compare_evaluations, is_evaluation

    with clear_errors():
        if any(map(is_evaluation, runs)):
            stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
            compare_evaluations(runs, html or Path("logs/comparisons") / f"{stamp}.html")
            return
        folders = [folder for run in runs for folder in run_folders(run)]
        Console(width=140).print(compare_runs(folders, csv))
