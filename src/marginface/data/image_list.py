"""Text files that name images and whose they are, whoever wrote them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from marginface.data.image_files import is_image_name
from marginface.utils.console import rank_zero_warn
from marginface.utils.errors import InputError
from marginface.utils.text_table import (
    Line,
    Lines,
    TextTable,
    is_number,
    numbers_the_lines,
    read_table,
)

PATH_HEADINGS = ("file", "filename", "image", "image_id", "image_path", "img_path", "filepath",
                 "file_path", "file_name", "image_name", "img", "images", "photo",
                 "picture")  # fmt: skip
LABEL_HEADINGS = ("label", "identity", "identity_id", "class", "class_id", "person", "person_id",
                  "subject", "subject_id", "class_idx", "person_name", "identity_name", "target",
                  "id", "name")  # fmt: skip
_LOOKED_AT = 100  # lines that show which column is which


def read_image_list(
    path: Path, label: str = "label", more: Mapping[str, Sequence[str]] | None = None
) -> tuple[list[str], list[str], dict[str, list[str]]]:
    """Paths and labels, as words, of all lines, and further columns where the file has them.

    Lines are `path label`, parted by blanks, tabs, commas or semicolons; face2rec's
    `aligned<TAB>path<TAB>label...`; im2rec's `key<TAB>label<TAB>path`; `path label` and numbers; or
    in any order under headings.

    Args:
        label: our heading of the labels.
        more: further columns: what headings each may have, by our name for it.

    Raises:
        InputError: a line without path or label, or columns that are the other way round.
    """
    table = read_table(path, _names_columns)
    columns: dict[str, list[str]] = {}
    if table.headings is not None:
        wanted: dict[str, Sequence[str]] = {"path": PATH_HEADINGS, label: LABEL_HEADINGS}
        present = {
            name: others
            for name, others in (more or {}).items()
            if table.column(name, *others) is not None
        }
        cells = table.by_heading(wanted | present, by_elimination=True)
        files, labels = ([row[place] for row in cells] for place in (0, 1))
        columns = {name: [row[i] for row in cells] for i, name in enumerate(present, start=2)}
    else:
        files, labels = _by_place(table)
    if not files:
        raise InputError(f"{path} lists no images")
    _check_order(path, files[:_LOOKED_AT], labels[:_LOOKED_AT])
    # Only what macOS leaves: a folder such as ~/.cache is where someone wants their images.
    seen = [n for n, name in enumerate(files) if "._" not in name or not _is_left_over(name)]
    if len(seen) < len(files):
        rank_zero_warn(f"{path}: {len(files) - len(seen)} hidden files in it are not read")
        files, labels = [files[n] for n in seen], [labels[n] for n in seen]
        columns = {name: [words[n] for n in seen] for name, words in columns.items()}
    return files, labels, columns


def _is_left_over(name: str) -> bool:
    return name.replace("\\", "/").rpartition("/")[2].startswith("._")


def _names_columns(fields: list[str], others: Lines) -> bool:
    """Whether the first line is one of headings: it has no image, the others have."""
    if any(map(is_image_name, fields)):
        return False
    if {"path", *PATH_HEADINGS, *LABEL_HEADINGS} & set(fields):
        return True
    some = others.fields[:_LOOKED_AT]
    return bool(some) and all(any(map(is_image_name, line)) for line in some)


def _by_place(table: TextTable) -> tuple[list[str], list[str]]:
    places = _places(table)
    pairs = table.lines.fields
    if all(len(fields) == 2 and all(fields) for fields in pairs):  # most lists, and quickly
        return [name for name, _ in pairs], [label for _, label in pairs]
    files, labels = [], []
    for line in table.lines:
        try:
            if places is None:
                name, label = _split_line(line, table.delimiter)
            else:
                name, label = (line.fields[place] for place in places)
            if not name or not label:
                raise ValueError(line.text)
        except (ValueError, IndexError) as error:
            raise InputError(
                f"{table.path}: line {line.number} is not 'path label', 'path<TAB>label', "
                "'path,label', 'aligned<TAB>path<TAB>label' or 'key<TAB>label<TAB>path': "
                f"{line.text[:80]!r}"
            ) from error
        files.append(name)
        labels.append(label)
    return files, labels


def _places(table: TextTable) -> tuple[int, int] | None:
    """Columns of path and label in lines with more than these two; None for all other lines."""
    some = table.lines[:_LOOKED_AT]
    widths = {len(line.fields) for line in some}
    if len(widths) != 1 or min(widths) < 3:
        return None
    columns = list(zip(*(line.fields for line in some), strict=True))
    images = [place for place, column in enumerate(columns) if all(map(is_image_name, column))]
    if images == [0] and all(is_number(word) for column in columns[1:] for word in column):
        # MagFace has `path 0 label 0`, others sides of the image: a class for all is no label.
        telling = [n for n, column in enumerate(columns) if n and len(set(column)) > 1]
        places = 0, min(telling, default=1)
    elif images == [1] and table.delimiter != "\t" and numbers_the_lines(some):
        places = 1, 2
    else:
        return None
    rank_zero_warn(
        f"{table.path}: read the path from column {places[0] + 1} and the label from column "
        f"{places[1] + 1} of {min(widths)}; the first is {columns[places[0]][0]!r} of "
        f"{columns[places[1]][0]!r}"
    )
    return places


def _split_line(line: Line, delimiter: str | None) -> tuple[str, str]:
    """Path and label of a line; ValueError when there are not both."""
    fields = line.fields
    if delimiter == "\t" and len(fields) >= 3:
        if is_image_name(fields[1]):  # face2rec
            return fields[1], fields[2]
        if is_image_name(fields[-1]) and fields[0].isdigit():  # im2rec
            return fields[-1], fields[1]
        raise ValueError(line.text)
    if delimiter is None:  # names may hold blanks
        name, label = line.text.rsplit(None, 1)
    elif len(fields) > 2:  # and what parts the columns
        name, label = map(str.strip, line.text.rsplit(delimiter, 1))
    else:
        name, label = fields
    return name, label


def _check_order(path: Path, files: list[str], labels: list[str]) -> None:
    """InputError for labels that look like images where the images do not."""
    if all(map(is_image_name, labels)) and not any(map(is_image_name, files)):
        raise InputError(
            f"{path}: the labels look like images ({labels[0]!r}) and the images do not "
            f"({files[0]!r}): the columns are the other way round. Write the path first, or "
            "a first line with headings: label,path"
        )
