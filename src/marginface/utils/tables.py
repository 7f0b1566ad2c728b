"""Tables in the terminal, and the format of metrics in them."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

# A cosine, a distance and indices; everything else is a fraction, printed in percent.
_AS_THEY_ARE = ("threshold", "d_prime", "fdr", "ir", "garbe")
_WIDTH = 140


def metric_cell(metric: str, value: float | None) -> str:
    """A metric in percent, a threshold as it is, "-" for one that is not there."""
    if value is None:
        return "-"
    return f"{value:.3f}" if metric in _AS_THEY_ARE else f"{100 * value:.2f}"


def interval_cell(metric: str, low: float, high: float) -> str:
    """An interval of a metric."""
    return f"{metric_cell(metric, low)} to {metric_cell(metric, high)}"


def make_table(headings: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> Table:
    """A table whose first column is words and whose others are numbers."""
    table = Table(title=title or None)
    for number, heading in enumerate(headings):
        justify = "left" if number == 0 else "right"
        table.add_column(escape(heading), justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    return table


def print_table(table: Table) -> None:
    """Print a table, at most so wide that lines can still be read."""
    Console(width=_WIDTH).print(table)


def print_line(line: str) -> None:
    """Print a line as it is, wrapped at the width of the tables."""
    Console(width=_WIDTH).print(line, markup=False, highlight=False)
