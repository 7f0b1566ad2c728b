"""Tables in text files, whoever wrote them: fields by line, and the headings if there are some."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from marginface.utils.console import rank_zero_print
from marginface.utils.errors import InputError

_DELIMITERS = ("\t", ",", ";")
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
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

    def by_heading(self, wanted: Mapping[str, Sequence[str]]) -> list[list[str]]:
        """The cells of each line in the columns that are wanted.

        A line says which columns were taken where they are not called as we call them.

        Args:
            wanted: what headings each column may have, by our name for it.

        Raises:
            InputError: no such column, or an empty cell in it.
        """
        assert self.headings is not None, "a table with headings"
        places = {name: self.column(name, *others) for name, others in wanted.items()}
        unknown = [i for i, _ in enumerate(self.headings) if i not in places.values()]
        lacking = [name for name, place in places.items() if place is None]
        if len(self.headings) == len(wanted) and len(unknown) == len(lacking) == 1:
            places[lacking.pop()] = unknown[0]  # the one column that is left
        if lacking:
            raise InputError(
                f"{self.path}: no column {', '.join(lacking)}; expected {','.join(wanted)} and got "
                f"{','.join(self.headings)}; rename the column that is meant"
            )
        columns = [place for place in places.values() if place is not None]
        if any(self.headings[place] != name for name, place in zip(places, columns, strict=True)):
            taken = ", ".join(
                f"{name} from column {self.headings[place]!r}"
                for name, place in zip(places, columns, strict=True)
            )
            rank_zero_print(f"{self.path}: read {taken}")
        return [self._cells(line, columns) for line in self.lines]

    def _cells(self, line: Line, columns: list[int]) -> list[str]:
        cells = [line.fields[place] if place < len(line.fields) else "" for place in columns]
        if not all(cells):
            assert self.headings is not None
            lacking = self.headings[columns[cells.index("")]]
            raise InputError(
                f"{self.path}: line {line.number} lacks its {lacking}: {line.text[:80]!r}"
            )
        return cells


def read_table(
    path: Path,
    is_heading: Callable[[list[str]], bool] = lambda fields: False,
) -> TextTable:
    """All lines of a file, parted by its tabs, commas, semicolons or blanks, whichever it has.

    A byte-order mark, blanks around fields, quotes as in csv, empty lines and lines that begin
    with # are no part of the fields. A column without heading that numbers the lines, which pandas
    writes in front, is left out. Names may hold any bytes; see `readable`.

    Args:
        is_heading: whether the (lower case) fields of the first line name columns.

    Raises:
        InputError: a file that is no text.
    """
    rows = list(_rows(path))
    delimiter = _delimiter_of([text for _, text in rows[:100]])
    lines = [Line(number, _split(text, delimiter), text.strip()) for number, text in rows]
    headings = None
    if lines:
        first = [field.lower() for field in lines[0].fields]
        if is_heading(first):
            headings, lines = first, lines[1:]
            if headings[0] in ("", "unnamed: 0", "index") and numbers_the_lines(lines):
                headings = headings[1:]
                lines = [Line(line.number, line.fields[1:], line.text) for line in lines]
    return TextTable(path, headings, lines, delimiter)


def readable(word: str) -> str:
    """A word for people: bytes that are no UTF-8 are taken for Latin-1."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return word.encode(errors="surrogateescape").decode("latin-1")
    return word


def numbers_the_lines(lines: list[Line]) -> bool:
    """Whether the first fields are whole numbers, each another one."""
    first = [line.fields[0] for line in lines]
    return bool(first) and all(map(str.isdigit, first)) and len(set(first)) == len(first)


def _rows(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(io.StringIO(_text(path), newline=None), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.rstrip("\n")


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content[:2] in _UTF_16_MARKS:  # Excel's "Unicode text"
        return content.decode("utf-16", errors="surrogatepass")
    if b"\0" in content[:4096]:
        raise InputError(f"{path} is not a text file")
    return content.decode("utf-8-sig", errors="surrogateescape")


def _delimiter_of(sample: list[str]) -> str | None:
    """What parts the fields: a mark that (nearly) every line has outside of quotes, else blanks."""
    for mark in _DELIMITERS:
        having = sum(len(_split(line, mark)) > 1 for line in sample)
        if sample and having >= max(1, len(sample) - 1):
            return mark
    return None


def _split(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    if '"' in line:
        fields = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    else:
        fields = line.split(delimiter)
    return [field.strip() for field in fields]
