"""`marginface runs`: which runs there are, and how far they are."""

import time
from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.pages.run_data import best_validation
from marginface.runs.folder import RunFolder
from marginface.runs.status import read_status
from marginface.utils.errors import InputError, MissingInputError, first_line
from marginface.utils.tables import make_table, metric_cell, print_table

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def runs_command(
    folder: Annotated[Path, typer.Argument(help="where to look for run folders")] = Path("logs"),
) -> None:
    """List run folders, the newest first: state, step, best accuracy, age."""
    with clear_errors():
        if not folder.is_dir():
            is_what = "is a file" if folder.exists() else "does not exist"
            raise MissingInputError(f"{folder} {is_what}; name the folder that holds the runs")
        found = [RunFolder(path.parent) for path in folder.rglob("config.yaml")]
        rows = []
        for run in found:
            if run.runinfo.is_file():  # other things have a config.yaml, too
                rows.append(_row(run, folder))
        if not rows:
            typer.echo(f"no run folders below {folder}")
            return
        rows.sort(key=lambda row: -row[0])
        headings = ("run", "state", "step", "best accuracy (%)", "last change")
        print_table(make_table(headings, [row[1:] for row in rows]))


def _row(run: RunFolder, below: Path) -> tuple[float, str, str, str, str, str]:
    """The time of the last change, then the cells."""
    name = str(run.path.relative_to(below))
    try:
        status, best = read_status(run), best_validation(run)
    except (InputError, ValueError) as error:  # a damaged file of one run hides no other
        return 0.0, name, f"unreadable: {first_line(error)}", "-", "-", "-"
    of_total = f" of {status.total_steps:,}" if status.total_steps else ""
    return (
        status.changed,
        name,
        status.state,
        f"{status.step:,}{of_total}",
        metric_cell("accuracy", best[1] if best else None),
        _age(time.time() - status.changed),
    )


def _age(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"
