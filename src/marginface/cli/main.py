"""The console script `marginface`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from marginface.cli import heads
from marginface.cli.align import align_command
from marginface.cli.errors import clear_errors
from marginface.cli.export_head import export_head_command
from marginface.cli.inspect_data import inspect_command
from marginface.cli.pack import pack_command
from marginface.report import compare_runs, run_folders

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.add_typer(heads.app, name="heads")
app.command("pack")(pack_command)
app.command("align")(align_command)
app.command("inspect-data")(inspect_command)
app.command("export-head")(export_head_command)


@app.callback()
def _marginface() -> None:
    """Train with `python train.py --help`; these commands handle data, heads and results."""


@app.command()
def compare(
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
    from marginface.evaluation_comparison import compare_evaluations, is_evaluation

    with clear_errors():
        if any(map(is_evaluation, runs)):
            stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
            compare_evaluations(runs, html or Path("logs/comparisons") / f"{stamp}.html")
            return
        folders = [folder for run in runs for folder in run_folders(run)]
        Console(width=140).print(compare_runs(folders, csv))
