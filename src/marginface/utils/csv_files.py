"""CSV files with a line of headings, as spreadsheets and other programs write them."""

import csv
from pathlib import Path
from typing import IO

from marginface.utils.errors import InputError


def open_csv(path: Path) -> IO[str]:
    """Open for reading: a byte-order mark is dropped, names of files may hold any bytes."""
    return path.open(newline="", encoding="utf-8-sig", errors="surrogateescape")


def read_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """All rows by heading; cells that are not there are empty.

    Args:
        columns: headings that must be there, others may.

    Raises:
        InputError: a column that is missing.
    """
    with open_csv(path) as file:
        reader = csv.DictReader(file, restval="")
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise InputError(
                f"{path}: no column {', '.join(sorted(missing))}; expected {','.join(columns)} and "
                f"got {','.join(reader.fieldnames or ())}"
            )
        return list(reader)
