"""Images in an LMDB database, with the keys scene-text sets made common, or with others.

`num-samples`, `image-000000001`, `label-000000001` and so on, counted from 1; values are the
encoded image and the class number as text. `num-classes` is ours and may be missing.
"""

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any, Unpack

import numpy as np

from marginface.data.dataset import FaceDataset, ReadingOptions
from marginface.data.formats._registry import register_format, register_writer
from marginface.data.formats.list import number_labels
from marginface.data.image_dataset import Labels
from marginface.data.image_list import read_image_list
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.optional_packages import require_package

COUNT, CLASSES, IDENTITIES = b"num-samples", b"num-classes", b"identities"


@register_format("lmdb", suffixes=(".mdb",), rank=20)
class LMDBDataset(FaceDataset):
    """Images of an LMDB database; needs the package lmdb (`pip install marginface[lmdb]`).

    Args:
        root: folder with data.mdb, or that file.
        image_key, label_key: of image number {}, where they are called otherwise: "img_{:06d}".
        first: number of the first image.
        labels: text file with lines `key label` instead; the keys of images are those in it.
        options: see `FaceDataset`.

    Raises:
        MissingInputError: no database.
        InputError: one that does not have the keys above, or the package is not there.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        image_key: str = "image-{:09d}",
        label_key: str = "label-{:09d}",
        first: int = 1,
        labels: str | Path | None = None,
        **options: Unpack[ReadingOptions],
    ) -> None:
        self.root = Path(root).parent if Path(root).name == "data.mdb" else Path(root)
        if not (self.root / "data.mdb").is_file():
            raise MissingInputError(
                f"no file {self.root / 'data.mdb'}; data.root must name an LMDB database"
            )
        self._keys: list[bytes] | None = None  # of images, where a text file lists them
        self._patterns = [_pattern("image_key", image_key), _pattern("label_key", label_key)]
        self._first = first
        try:
            numbers, num_classes, identities = (
                self._read_labels() if labels is None else self._read_list(Path(labels))
            )
        except OSError as error:
            if isinstance(error, MissingInputError):  # which is an OSError, too
                raise
            raise InputError(f"{self.root}: {error}") from error
        super().__init__(
            numbers, num_classes, where=str(self.root), identities=identities, **options
        )

    def image_bytes(self, index: int) -> bytes:
        try:
            with lmdb_errors(), _open(self.root).begin() as transaction:
                value = transaction.get(self._key(index))
        except OSError as error:
            raise InputError(str(error)) from error
        if value is None:
            raise InputError("the database has no such key")
        return value

    def describe(self, index: int) -> str:
        return f"{self._key(index).decode(errors='replace')} of {self.root}"

    def _key(self, index: int, kind: int = 0) -> bytes:
        if self._keys is not None and kind == 0:
            return self._keys[index]
        return self._patterns[kind].format(index + self._first).encode()

    def _counted(self, transaction: Any) -> bytes | None:
        """How many images there are, as num-samples would say it."""
        number = 0
        while transaction.get(self._key(number)) is not None:
            number += 1
        entries = transaction.stat(_open(self.root).open_db())["entries"]
        if number and entries > 2 * number:  # others than these images and their labels
            self._check_gap(transaction, number)
        return b"%d" % number if number else None

    def _check_gap(self, transaction: Any, number: int) -> None:
        """InputError where keys of images come after the first number that is missing."""
        parts = Formatter().parse(self._patterns[0])
        words = [
            re.escape(text) + (r"\d+" if field is not None else "") for text, field, *_ in parts
        ]
        is_image = re.compile("".join(words).encode()).fullmatch
        keys = transaction.cursor().iternext(keys=True, values=False)
        stored = sum(is_image(key) is not None for key in keys)
        if stored > number and self._first and transaction.get(self._key(-1)) is not None:
            raise InputError(
                f"{self.root}: there is {self._key(-1).decode()}, before the first number; set "
                f"data.dataset.first={self._first - 1}"
            )
        if stored > number:
            raise InputError(
                f"{self.root}: {self._key(number).decode()} is missing among {stored} images, "
                "and num-samples, too; name the images in a list with data.dataset.labels"
            )

    def _read_list(self, path: Path) -> tuple[Labels, None, list[str] | None]:
        if not path.is_file():
            raise MissingInputError(f"no file {path}; data.dataset.labels must name one")
        keys, words, _ = read_image_list(path)
        self._keys = [key.encode(errors="surrogateescape") for key in keys]
        with lmdb_errors(), _open(self.root).begin() as transaction:
            if transaction.get(self._keys[0]) is None:
                raise InputError(
                    f"{path}: its first key {keys[0]!r} is not in {self.root}, which has "
                    f"{_some_keys(transaction)}"
                )
        numbers, identities = number_labels(words, path)
        return numbers, None, identities

    def _read_labels(self) -> tuple[Labels, int | None, list[str] | None]:
        with lmdb_errors(), _open(self.root).begin() as transaction:
            count = transaction.get(COUNT) or self._counted(transaction)
            entries = transaction.stat(_open(self.root).open_db())["entries"]
            if count is None or not count.isdigit() or int(count) > entries:
                raise InputError(
                    f"{self.root}: num-samples is {count!r} among {entries} keys "
                    f"({_some_keys(transaction)}); expected the keys num-samples, image-000000001, "
                    "label-000000001, ... Others are named by data.dataset.image_key and "
                    "label_key, or listed in data.dataset.labels"
                )
            labels = np.empty(int(count), np.int64)
            for index in range(int(count)):
                value = transaction.get(self._key(index, 1))
                if value is None or not value.isdigit():
                    raise InputError(
                        f"{self.root}: {self._key(index, 1).decode()} is {value!r}, no class number"
                    )
                labels[index] = int(value)
            classes, identities = transaction.get(CLASSES), transaction.get(IDENTITIES)
        try:
            return labels, classes and int(classes), identities and json.loads(identities)
        except ValueError as error:
            raise InputError(f"{self.root}: damaged num-classes or identities ({error})") from error


def _pattern(name: str, pattern: str) -> str:
    """InputError for a key that has no place for a number."""
    try:
        if pattern.format(1) != pattern.format(2):
            return pattern
    except (ValueError, IndexError, KeyError):
        pass
    raise InputError(
        f"data.dataset.{name}={pattern} has no place for the number of an image, as image-{{:09d}}"
    )


def _some_keys(transaction: Any) -> str:
    first = itertools.islice(transaction.cursor().iternext(values=False), 3)
    return ", ".join(key.decode(errors="replace") for key in first) + ", ..."


@contextmanager
def lmdb_errors() -> Iterator[None]:
    """LMDB's own errors, a full disk among them, as OSError."""
    lmdb = require_package("lmdb", extra="lmdb")
    try:
        yield
    except lmdb.Error as error:
        raise OSError(f"LMDB: {error}") from error


@cache
def _open(root: Path) -> Any:
    """The database, once a process: LMDB refuses a second time.

    Read-only and without locks it is only a memory map, so forked workers can continue with
    the one they inherit. No read-ahead: images are read at random.
    """
    lmdb = require_package("lmdb", extra="lmdb")
    try:
        return lmdb.open(str(root), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise InputError(f"{root} is not an LMDB database ({error})") from error


def image_key(index: int) -> bytes:
    """Key of image `index`, counted from 0."""
    return b"image-%09d" % (index + 1)


def label_key(index: int) -> bytes:
    """Key of its label."""
    return b"label-%09d" % (index + 1)


_COMMIT_EVERY = 1000


@register_writer("lmdb")
class LMDBWriter:
    """One database, committed every so many images."""

    def __init__(self, folder: Path, source: FaceDataset, order: list[int]) -> None:
        lmdb = require_package("lmdb", extra="lmdb")
        self._source, self._labels = source, source.labels[order].tolist()
        # An upper limit of the address space; the file grows as it is filled.
        self._environment = lmdb.open(str(folder), map_size=1 << 42, lock=False)
        self._transaction = self._environment.begin(write=True)
        self.done = self._count() // _COMMIT_EVERY * _COMMIT_EVERY
        self._written, self._seen = self.done, 0

    def holds(self, number: int, image: bytes) -> bool:
        self._seen += 1
        found = [self._transaction.get(key(self._seen - 1)) for key in (image_key, label_key)]
        return found == [image, b"%d" % self._labels[number]]

    def _count(self) -> int:
        value = self._transaction.get(COUNT)
        return 0 if value is None else int(value)

    def write(self, number: int, image: bytes) -> None:
        with lmdb_errors():
            self._transaction.put(image_key(self._written), image)
            self._transaction.put(label_key(self._written), b"%d" % self._labels[number])
            self._written += 1
            if self._written % _COMMIT_EVERY == 0:
                self._commit()

    def _commit(self) -> None:
        self._transaction.put(COUNT, b"%d" % self._written)
        self._transaction.commit()
        self._transaction = self._environment.begin(write=True)

    def finish(self) -> None:
        with lmdb_errors():
            self._transaction.put(CLASSES, b"%d" % self._source.num_classes)
            if self._source.identities is not None:
                names = json.dumps(self._source.identities).encode()
                self._transaction.put(IDENTITIES, names)
            self._commit()

    def close(self) -> None:
        self._transaction.abort()
        self._environment.close()
