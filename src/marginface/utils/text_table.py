"""Tables in text files, whoever wrote them: fields by line, and the headings if there are some."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from marginface.utils.errors import InputError

_DELIMITERS = ("\t", ",", ";")


@dataclass(frozen=True)
class Line:
    """One line that is neither empty nor a comment."""

    number: int  # in the file, from 1
    fields: list[str]
    text: str  # as it stands, without blanks around it


@dataclass(frozen=True)
class TextTable:
    """The lines of a file.

    Attributes:
        headings: lower case, of the first line when it names columns; None without such a line.
        lines: all others.
        delimiter: tab, comma or semicolon; None: blanks.
    """

    path: Path
    headings: list[str] | None
    lines: list[Line]
    delimiter: str | None

    def column(self, *names: str) -> int | None:
        """The place of the first of these headings that is there."""
        for name in names:
            if self.headings is not None and name in self.headings:
                return self.headings.index(name)
        return None


def read_table(
    path: Path,
    is_heading: Callable[[list[str]], bool] = lambda fields: False,
) -> TextTable:
    """All lines of a file, parted by its tabs, commas, semicolons or blanks, whichever it has.

    A byte-order mark, blanks around fields, quotes as in csv, empty lines and lines that begin
    with # are no part of the fields. A column without heading that numbers the lines, which pandas
    writes in front, is left out. Names may hold any bytes.

    Args:
        is_heading: whether the (lower case) fields of the first line name columns.

    Raises:
        InputError: a file of another kind (UTF-16, zip, ...).
    """
    rows = list(_rows(path))
    delimiter = _delimiter_of([text for _, text in rows[:100]])
    lines = [Line(number, _split(text, delimiter), text.strip()) for number, text in rows]
    headings = None
    if lines:
        first = [field.lower() for field in lines[0].fields]
        if is_heading(first):
            headings, lines = first, lines[1:]
            if headings[0] in ("", "unnamed: 0", "index") and _numbers_the_lines(lines):
                headings = headings[1:]
                lines = [Line(line.number, line.fields[1:], line.text) for line in lines]
    return TextTable(path, headings, lines, delimiter)


def _rows(path: Path) -> Iterator[tuple[int, str]]:
    content = path.read_bytes()
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path} is UTF-16, as Excel's Unicode text; save it as UTF-8 (csv)")
    if b"\0" in content[:4096]:
        raise InputError(f"{path} is not a text file")
    text = content.decode("utf-8-sig", errors="surrogateescape")
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def _delimiter_of(sample: list[str]) -> str | None:
    """What parts the fields: a mark that (nearly) every line has outside of quotes, else blanks."""
    for mark in _DELIMITERS:
        having = sum(len(_parted(line, mark)) > 1 for line in sample)
        if sample and having >= max(1, len(sample) - 1):
            return mark
    return None


def _split(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    return [field.strip() for field in _parted(line, delimiter)]


def _parted(line: str, mark: str) -> list[str]:
    return next(csv.reader([line], delimiter=mark, skipinitialspace=True), [])


def _numbers_the_lines(lines: list[Line]) -> bool:
    first = [line.fields[0] for line in lines]
    return bool(first) and all(map(str.isdigit, first)) and len(set(first)) == len(first)
