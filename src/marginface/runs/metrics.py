"""metrics.csv as columns of numbers."""

import csv
from array import array
from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marginface.utils.errors import InputError, MissingInputError

Column = NDArray[np.float64]
Columns = dict[str, Column]


def read_metrics(path: Path, only: Collection[str] | None = None) -> Columns:
    """Columns of a metrics.csv by name, NaN where a row has no such number.

    A last line without its end is left out: the run was ended while it wrote it.

    Args:
        path: of the file.
        only: names of the columns that are wanted besides `step`; a long log is read in less time.

    Raises:
        MissingInputError: no such file.
        InputError: a file that is not one of a run.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist: the run has not logged a step yet")
    with path.open(newline="", errors="replace") as file:
        reader = csv.reader(line for line in file if line.endswith("\n"))
        names = next(reader, [])
        if not names:
            raise InputError(f"{path} has no whole first line yet, which names its columns")
        if "step" not in names:
            raise InputError(f"{path} is not the log of a run: its first line names no 'step'")
        wanted = [n for n, name in enumerate(names) if only is None or name in {"step", *only}]
        columns = [array("d") for _ in wanted]
        for row in reader:
            if len(row) != len(names):
                raise InputError(
                    f"{path}, line {reader.line_num}: {len(row)} values for {len(names)} columns"
                )
            for column, place in zip(columns, wanted, strict=True):
                column.append(_number(row[place], path, reader.line_num))
    return {
        names[place]: np.frombuffer(column, np.float64) if len(column) else np.empty(0)
        for place, column in zip(wanted, columns, strict=True)
    }


def known(columns: Columns, name: str) -> tuple[Column, Column]:
    """Steps and values of the rows that have this number; both empty where none has."""
    if name not in columns:
        return np.empty(0), np.empty(0)
    has = np.isfinite(columns[name])
    return columns["step"][has], columns[name][has]


def _number(cell: str, path: Path, line: int) -> float:
    try:
        return float(cell) if cell else float("nan")
    except ValueError:
        raise InputError(f"{path}, line {line}: {cell!r} is not a number") from None
