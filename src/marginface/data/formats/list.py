"""A list of images: one line with a path and an identity for each."""

import re
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from marginface.data.dataset import MOST_CLASSES, FaceDataset, ReadingOptions
from marginface.data.formats._registry import register_format, register_writer
from marginface.data.formats.folder import FolderWriter
from marginface.data.image_dataset import Labels
from marginface.data.image_files import (
    found_below,
    hash_of_names,
    is_image_name,
    read_image_file,
)
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.text_table import Line, TextTable, read_table

LIST_SUFFIXES = (".lst", ".txt", ".tsv", ".csv", ".list")
LIST_NAME = "faces.lst"  # what `marginface pack --format list` writes
_PATH_HEADINGS = ("path", "file", "filename", "image", "image_id", "image_path", "img_path",
                  "filepath", "file_path", "file_name", "image_name", "img", "images")  # fmt: skip
_LABEL_HEADINGS = ("label", "identity", "identity_id", "class", "class_id", "person", "person_id",
                   "subject", "subject_id", "target", "id", "name")  # fmt: skip
_WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0*)?")


@register_format("list", suffixes=LIST_SUFFIXES, contains=(LIST_NAME,), rank=60)
class ListDataset(FaceDataset):
    """Images named in a file, a line each: `path label`, `path<TAB>label`, `path,label`,
    face2rec's `aligned<TAB>path<TAB>label...` or im2rec's `key<TAB>label<TAB>path`.

    Whole numbers are class numbers as they stand; when any label is another word, all of them are
    names and numbered in sorted order; so are numbers of 2^31 and more. Empty lines, lines that
    begin with # and a first line with headings are not images. With headings (`path,label` and
    other usual names) columns may stand in any order, beside others.

    Args:
        root: the list, or a folder that holds exactly one.
        images: folder the paths are relative to; the list's own folder when not given.
        options: see `FaceDataset`.

    Raises:
        MissingInputError: no list.
        InputError: a line of another form, or none of the first images is there.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        images: str | Path | None = None,
        **options: Unpack[ReadingOptions],
    ) -> None:
        self.path = find_list(Path(root))
        self.root = self.path.parent if images is None else Path(images)
        if not self.root.is_dir():
            raise MissingInputError(f"no folder {self.root}; data.dataset.images must name one")
        self.files, words = read_list(self.path)
        labels, identities = number_labels(words, self.path)
        super().__init__(labels, where=str(self.path), identities=identities, **options)
        self.files = found_below(self.root, self.files, self.path)

    def image_bytes(self, index: int) -> bytes:
        # An absolute path in the list stays one.
        name = self.files[index]
        return read_image_file(Path("/") if name.startswith("/") else self.root, name)

    def describe(self, index: int) -> str:
        return str(self.root / self.files[index])

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | {"files_sha256": hash_of_names(self.files)}


def find_list(root: Path) -> Path:
    """`root` itself or the only list file in it.

    Raises:
        MissingInputError: none.
        InputError: several.
    """
    if root.is_file():
        return root
    if (root / LIST_NAME).is_file():
        return root / LIST_NAME
    lists = sorted(p for p in root.glob("*") if p.suffix in LIST_SUFFIXES) if root.is_dir() else []
    if not lists:
        raise MissingInputError(
            f"no list {root}; data.root must name a file with a path and a label in each line"
        )
    if len(lists) > 1:
        names = ", ".join(path.name for path in lists)
        raise InputError(f"{root} holds {names}; name one of them instead of the folder")
    return lists[0]


def read_list(path: Path) -> tuple[list[str], list[str]]:
    """Paths and labels, as words, of all lines.

    Raises:
        InputError: a line without both, or columns that are the other way round.
    """
    table = read_table(path, _names_columns)
    if table.headings is not None:
        files, labels = _by_heading(table)
    else:
        files, labels = [], []
        for line in table.lines:
            try:
                name, label = split_line(line, table.delimiter)
            except ValueError as error:
                raise InputError(
                    f"{path}: line {line.number} is not 'path label', 'path<TAB>label', "
                    "'path,label', 'aligned<TAB>path<TAB>label' or 'key<TAB>label<TAB>path': "
                    f"{line.text[:80]!r}"
                ) from error
            files.append(name)
            labels.append(label)
    if not files:
        raise InputError(f"{path} lists no images")
    _check_order(path, files[:100], labels[:100])
    return files, labels


def split_line(line: Line, delimiter: str | None) -> tuple[str, str]:
    """Path and label of a line without headings; ValueError when there are not both."""
    fields = line.fields
    if delimiter == "\t" and len(fields) >= 3:
        if is_image_name(fields[1]):  # face2rec
            return fields[1], fields[2]
        if is_image_name(fields[-1]) and fields[0].isdigit():  # im2rec
            return fields[-1], fields[1]
        raise ValueError(line.text)
    if delimiter is None:  # names may hold blanks
        fields = line.text.rsplit(None, 1)
    elif len(fields) > 2 and delimiter != "\t":  # and what parts the columns
        fields = line.text.rsplit(delimiter, 1)
    name, label = (field.strip() for field in fields)
    if not name or not label:
        raise ValueError(line.text)
    return name, label


def _names_columns(fields: list[str]) -> bool:
    """Whether the first line is one of headings."""
    known = set(_PATH_HEADINGS) | set(_LABEL_HEADINGS)
    return bool(known & set(fields)) and not any(map(is_image_name, fields))


def _by_heading(table: TextTable) -> tuple[list[str], list[str]]:
    assert table.headings is not None
    name, label = table.column(*_PATH_HEADINGS), table.column(*_LABEL_HEADINGS)
    if len(table.headings) == 2:  # the one that is not known is the other one
        name = 1 - label if name is None and label is not None else name
        label = 1 - name if label is None and name is not None else label
    if name is None or label is None:
        what = f"image ({', '.join(_PATH_HEADINGS[:4])}, ...)"
        if name is not None:
            what = f"identity ({', '.join(_LABEL_HEADINGS[:4])}, ...)"
        raise InputError(
            f"{table.path}: no column of the {what} among the headings {','.join(table.headings)}; "
            "rename one of them"
        )
    files, labels = [], []
    for line in table.lines:
        if len(line.fields) <= max(name, label) or not line.fields[name] or not line.fields[label]:
            raise InputError(
                f"{table.path}: line {line.number} lacks its {table.headings[name]} or "
                f"{table.headings[label]}: {line.text[:80]!r}"
            )
        files.append(line.fields[name])
        labels.append(line.fields[label])
    return files, labels


def _check_order(path: Path, files: list[str], labels: list[str]) -> None:
    """InputError for labels that look like images where the images do not."""
    if all(map(is_image_name, labels)) and not any(map(is_image_name, files)):
        raise InputError(
            f"{path}: the labels look like images ({labels[0]!r}) and the images do not "
            f"({files[0]!r}): the columns are the other way round. Write the path first, or "
            "a first line with headings: label,path"
        )


def number_labels(words: list[str], path: Path) -> tuple[Labels, list[str] | None]:
    """Class numbers of label words, and the names behind them if they are names.

    Raises:
        InputError: a negative number.
    """
    if all(map(_WHOLE_NUMBER.fullmatch, words)):
        numbers = [int(word.split(".")[0]) for word in words]
        if min(numbers) < 0:
            first = numbers.index(min(numbers))
            raise InputError(
                f"{path}: label {numbers[first]} of image {first} is outside [0, {MOST_CLASSES})"
            )
        if max(numbers) < MOST_CLASSES:
            return np.array(numbers, np.int64), None
        # Numbers that no class can have are what people are called.
    names = sorted(set(words))
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[word] for word in words], np.int64), names


@register_writer("list")
class ListWriter(FolderWriter):
    """The same, with the paths and class numbers in a list."""

    list_name = LIST_NAME
