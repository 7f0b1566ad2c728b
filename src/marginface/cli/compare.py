"""`marginface compare`: finished runs, a sweep, or evaluations next to each other."""

from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.runs.comparison import compare_runs, run_folders
from marginface.utils.files import time_stamp
from marginface.utils.tables import print_table


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
            page = html or Path("logs/comparisons") / f"{time_stamp()}.html"
            compare_evaluations(runs, page)
            return
        folders = [folder for run in runs for folder in run_folders(run)]
        print_table(compare_runs(folders, csv))
