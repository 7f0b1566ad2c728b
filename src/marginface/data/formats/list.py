"""A list of images: one line with a path and an identity for each."""

import re
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from marginface.data.dataset import MOST_CLASSES, FaceDataset, ReadingOptions
from marginface.data.formats._registry import register_format, register_writer
from marginface.data.formats.folder import FolderWriter
from marginface.data.identity_names import read_names
from marginface.data.image_dataset import Labels
from marginface.data.image_files import found_below, hash_of_names, read_image_file, visible
from marginface.data.image_list import read_image_list
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.text_table import readable

LIST_SUFFIXES = (".lst", ".txt", ".tsv", ".csv", ".list")
LIST_NAME = "faces.lst"  # what `marginface pack --format list` writes
_WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0*)?")


@register_format("list", suffixes=LIST_SUFFIXES, contains=(LIST_NAME,), rank=60)
class ListDataset(FaceDataset):
    """Images named in a file, a line each: `path label`, `path<TAB>label`, `path,label`,
    face2rec's `aligned<TAB>path<TAB>label...` or im2rec's `key<TAB>label<TAB>path`.

    Whole numbers are class numbers as they stand; when any label is another word, all of them are
    names and numbered in sorted order; so are numbers of 2^31 and more, and those with zeros in
    front. Empty lines, lines that begin with # and a first line with headings are not images. With
    headings (`path,label` and other usual names) columns may stand in any order, beside others.

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
        self.files, words, _ = read_image_list(self.path)
        labels, identities = number_labels(words, self.path)
        if identities is None and self.path.name == LIST_NAME:  # as ListWriter wrote it
            identities = read_names(self.path.parent, int(labels.max()) + 1)
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
    lists = [p for p in visible(root, "*") if p.suffix in LIST_SUFFIXES] if root.is_dir() else []
    if not lists:
        raise MissingInputError(
            f"no list {root}; data.root must name a file with a path and a label in each line"
        )
    if len(lists) > 1:
        names = ", ".join(path.name for path in lists)
        raise InputError(f"{root} holds {names}; name one of them instead of the folder")
    return lists[0]


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
        if max(numbers) < MOST_CLASSES and not _are_padded(words):
            return np.array(numbers, np.int64), None
        # Otherwise they are what people are called.
    words = [readable(word) for word in words]
    names = sorted(set(words))
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[word] for word in words], np.int64), names


def _are_padded(words: list[str]) -> bool:
    """Whether all numbers are of one length, some with zeros in front."""
    different = set(words)
    padded = any(word[0] == "0" and word[1:].isdigit() for word in different)
    return padded and len({len(word) for word in different}) == 1


@register_writer("list")
class ListWriter(FolderWriter):
    """The same, with the paths and class numbers in a list."""

    list_name = LIST_NAME
