"""Tables in text files, whoever wrote them: fields by line, and the headings if there are some."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, overload

from marginface.utils.console import rank_zero_print
from marginface.utils.errors import InputError

_DELIMITERS = ("\t", ",", ";")
_BETWEEN_WORDS = re.compile(r"[\s-]+")
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Line(NamedTuple):
    """One line that is neither empty nor a comment."""

    number: int  # in the file, from 1
    fields: tuple[str, ...]
    text: str  # as it stands, without blanks around it


class Lines(Sequence[Line]):
    """Lines by columns, because lists have millions of them.

    An object for each would let the garbage collector look at all of them again and again; numbers,
    words and tuples of words it leaves alone.
    """

    def __init__(self, numbers: list[int], fields: list[tuple[str, ...]], texts: list[str]) -> None:
        self.numbers, self.fields, self.texts = numbers, fields, texts

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Line]:
        return map(Line._make, zip(self.numbers, self.fields, self.texts, strict=True))

    @overload
    def __getitem__(self, place: int) -> Line: ...

    @overload
    def __getitem__(self, place: slice) -> "Lines": ...

    def __getitem__(self, place: int | slice) -> "Line | Lines":
        if isinstance(place, slice):
            return Lines(self.numbers[place], self.fields[place], self.texts[place])
        return Line(self.numbers[place], self.fields[place], self.texts[place])


@dataclass(frozen=True)
class TextTable:
    """The lines of a file.

    Attributes:
        headings: of the first line when it names columns, in lower case, with _ between words;
            None without such a line.
        lines: all others.
        delimiter: tab, comma or semicolon; None: blanks.
    """

    path: Path
    headings: list[str] | None
    lines: Lines
    delimiter: str | None

    def column(self, *names: str) -> int | None:
        """The place of the first of these headings that is there."""
        for name in names:
            if self.headings is not None and name in self.headings:
                return self.headings.index(name)
        return None

    def by_heading(
        self, wanted: Mapping[str, Sequence[str]], *, by_elimination: bool = False
    ) -> list[tuple[str, ...]]:
        """The cells of each line in the columns that are wanted.

        A line says which columns were taken where they are not called as we call them.

        Args:
            wanted: what headings each column may have, by our name for it.
            by_elimination: of two columns the one that is not known is the other one.

        Raises:
            InputError: no such column, or an empty cell in it.
        """
        assert self.headings is not None, "a table with headings"
        places = {name: self.column(name, *others) for name, others in wanted.items()}
        unknown = [i for i, _ in enumerate(self.headings) if i not in places.values()]
        lacking = [name for name, place in places.items() if place is None]
        if by_elimination and len(self.headings) == 2 and len(unknown) == len(lacking) == 1:
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

    def _cells(self, line: Line, columns: list[int]) -> tuple[str, ...]:
        cells = tuple(line.fields[i] if i < len(line.fields) else "" for i in columns)
        if not all(cells):
            assert self.headings is not None
            lacking = self.headings[columns[cells.index("")]]
            raise InputError(
                f"{self.path}: line {line.number} lacks its {lacking}: {line.text[:80]!r}"
            )
        return cells


def read_table(
    path: Path,
    is_heading: Callable[[list[str], Lines], bool] = lambda fields, lines: False,
) -> TextTable:
    """All lines of a file, parted by its tabs, commas, semicolons or blanks, whichever it has.

    A byte-order mark, blanks around fields, quotes as in csv, empty lines and lines that begin
    with # are no part of the fields. A column without heading that numbers the lines, which pandas
    writes in front, is left out. Names may hold any bytes; see `readable`.

    Args:
        is_heading: whether the fields of the first line (in lower case, with _ for blanks and
            hyphens) name columns; it is given the other lines, too.

    Raises:
        InputError: a file that is no text.
    """
    text = _text(path)
    numbers, rows = _rows(text)
    delimiter = _delimiter_of(rows[:100])
    # Lists have millions of lines, so whole columns are made at once.
    fields = _all_fields(text, rows, delimiter)
    lines = Lines(numbers, fields, list(map(str.strip, rows)))
    headings = None
    if lines:
        first = list(map(as_heading, lines[0].fields))
        if is_heading(first, lines[1:]):
            headings, lines = first, lines[1:]
            if headings[0] in ("", "unnamed: 0", "index") and numbers_the_lines(lines):
                headings = headings[1:]
                without = [fields[1:] for fields in lines.fields]
                lines = Lines(lines.numbers, without, lines.texts)
    return TextTable(path, headings, lines, delimiter)


def as_heading(field: str) -> str:
    """A field as a heading: in lower case, with _ for blanks and hyphens."""
    return _BETWEEN_WORDS.sub("_", field.lower())


def readable(word: str) -> str:
    """A word for people: bytes that are no UTF-8 are taken for Latin-1."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return word.encode(errors="surrogateescape").decode("latin-1")
    return word


def is_number(word: str) -> bool:
    """Whether a word is a number of any kind."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def numbers_the_lines(lines: Lines) -> bool:
    """Whether the first fields are whole numbers, each another one."""
    first = [fields[0] for fields in lines.fields]
    return bool(first) and all(map(str.isdigit, first)) and len(set(first)) == len(first)


def _rows(text: str) -> tuple[list[int], list[str]]:
    """Numbers, from 1, and lines that are neither empty nor a comment."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    rows = [(n, line) for n, line in enumerate(lines, start=1) if line and not line.isspace()]
    if "#" in text:
        rows = [(n, line) for n, line in rows if line.lstrip()[0] != "#"]
    return [n for n, _ in rows], [line for _, line in rows]


def _all_fields(text: str, rows: list[str], delimiter: str | None) -> list[tuple[str, ...]]:
    """The fields of all lines; only as much is done as the text asks for."""
    if delimiter is None:
        return [tuple(row.split()) for row in rows]
    if '"' in text:
        return [tuple(_split(row, delimiter)) for row in rows]
    blanks = (
        f" {delimiter}",
        f"{delimiter} ",
        " \n",
        "\n ",
        " \r",
        "\t" if delimiter != "\t" else " \t",
    )
    if text[:1].isspace() or text[-1:] == " " or any(blank in text for blank in blanks):
        return [tuple(map(str.strip, row.split(delimiter))) for row in rows]
    return [tuple(row.split(delimiter)) for row in rows]


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
