"""`marginface report`: the page of a run or of a sweep, written again."""

from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.pages.run_page import write_run_page
from marginface.pages.sweep_page import SWEEP_REPORT, write_comparison_page
from marginface.runs.comparison import run_folders


def report_command(
    run: Annotated[Path, typer.Argument(help="a run folder, or the folder of a sweep")],
) -> None:
    """Write report.html of a run or a sweep, from what its folder holds now."""
    with clear_errors():
        folders = run_folders(run)
        if folders == [run]:
            page = write_run_page(run)
        else:
            page = write_comparison_page(folders, run / SWEEP_REPORT, run.name)
        typer.echo(f"page {page}")
