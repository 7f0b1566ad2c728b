"""A list of images: one line with a path and an identity for each."""

import re
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from marginface.data.dataset import MOST_CLASSES, FaceDataset, ReadingOptions
from marginface.data.formats._registry import register_format, register_writer
from marginface.data.formats.folder import FolderWriter
from marginface.data.image_dataset import Labels
from marginface.data.image_files import hash_of_names, is_image_name, read_image_file
from marginface.utils.errors import InputError, MissingInputError

LIST_SUFFIXES = (".lst", ".txt", ".tsv", ".csv", ".list")
LIST_NAME = "faces.lst"  # what `marginface pack --format list` writes
_HEADINGS = ("path", "file", "filename", "image", "image_id")
_WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0*)?")


@register_format("list", suffixes=LIST_SUFFIXES, contains=(LIST_NAME,), rank=60)
class ListDataset(FaceDataset):
    """Images named in a file, a line each: `path label`, `path<TAB>label`, `path,label`,
    face2rec's `aligned<TAB>path<TAB>label...` or im2rec's `key<TAB>label<TAB>path`.

    Whole numbers are class numbers as they stand; when any label is another word, all of them are
    names and numbered in sorted order. Empty lines, lines that begin with # and a first line with
    headings (`path,label`) are not images.

    Args:
        root: the list, or a folder that holds exactly one.
        images: folder the paths are relative to; the list's own folder when not given.
        options: see `FaceDataset`.

    Raises:
        MissingInputError: no list.
        InputError: a line of another form.
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
        InputError: a line without both.
    """
    files, labels = [], []
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for number, raw in enumerate(lines, start=1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            try:
                name, label = split_line(line)
            except ValueError as error:
                raise InputError(
                    f"{path}: line {number} is not 'path label', 'path<TAB>label', 'path,label', "
                    f"'aligned<TAB>path<TAB>label' or 'key<TAB>label<TAB>path': {line[:80]!r}"
                ) from error
            if number == 1 and name.lower() in _HEADINGS:
                continue
            files.append(name)
            labels.append(label)
    if not files:
        raise InputError(f"{path} lists no images")
    return files, labels


def split_line(line: str) -> tuple[str, str]:
    """Path and label of a line; ValueError when there are not both."""
    fields = line.split("\t")
    if len(fields) >= 3:
        if is_image_name(fields[1]):  # face2rec
            return fields[1], fields[2]
        if is_image_name(fields[-1]) and fields[0].isdigit():  # im2rec
            return fields[-1], fields[1]
        raise ValueError(line)
    if len(fields) == 1:
        fields = line.rsplit("," if "," in line and " " not in line else None, 1)
    name, label = (field.strip() for field in fields)
    if not name or not label:
        raise ValueError(line)
    return name, label


def number_labels(words: list[str], path: Path) -> tuple[Labels, list[str] | None]:
    """Class numbers of label words, and the names behind them if they are names.

    Raises:
        InputError: a number outside [0, 2^31).
    """
    if all(map(_WHOLE_NUMBER.fullmatch, words)):
        numbers = [int(word.split(".")[0]) for word in words]
        for first, number in enumerate(numbers):
            if not 0 <= number < MOST_CLASSES:
                raise InputError(
                    f"{path}: label {number} of image {first} is outside [0, {MOST_CLASSES})"
                )
        return np.array(numbers, np.int64), None
    names = sorted(set(words))
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[word] for word in words], np.int64), names


@register_writer("list")
class ListWriter(FolderWriter):
    """The same, with the paths and class numbers in a list."""

    list_name = LIST_NAME
