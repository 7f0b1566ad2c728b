"""`marginface compare`: finished runs, a sweep, or evaluations next to each other."""

from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.pages.groups import group_runs
from marginface.pages.sweep_page import show_groups, write_comparison_page
from marginface.runs.comparison import compare_runs, read_compared, run_folders
from marginface.utils.errors import InputError
from marginface.utils.files import time_stamp
from marginface.utils.tables import print_table


def compare_command(
    runs: Annotated[
        list[Path], typer.Argument(help="run folders, a sweep folder, or evaluation folders")
    ],
    csv: Annotated[Path | None, typer.Option(help="of runs: also write the numbers here")] = None,
    page: Annotated[
        bool, typer.Option("--page", help="of runs: also write a page (evaluations: always)")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="where the page goes; default in logs/comparisons")
    ] = None,
) -> None:
    """Compare runs (settings, metrics, groups over seeds) or evaluations (paired differences)."""
    # Not needed by the other commands, and slow to import.
    from marginface.evaluation.comparison import compare_evaluations, is_evaluation

    with clear_errors():
        path = html or Path("logs/comparisons") / f"{time_stamp()}.html"
        if any(map(is_evaluation, runs)):
            compare_evaluations(runs, path)
            return
        given = [folder for run in runs for folder in run_folders(run)]
        folders = list({folder.resolve(): folder for folder in given}.values())  # each once
        print_table(compare_runs(folders, csv))
        if len(folders) > 1:
            show_groups(group_runs(read_compared(folders)))
        if page or html is not None:
            if path.exists():
                raise InputError(
                    f"{path} exists; choose another name with --html, nothing is overwritten"
                )
            names = ", ".join(str(run) for run in runs)
            typer.echo(f"page {write_comparison_page(folders, path, names)}")
