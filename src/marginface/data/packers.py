"""How each format is written, image after image, and gone on with after an interruption."""

import json
import os
from pathlib import Path
from typing import Protocol

import numpy as np

from marginface.data.dataset import FaceDataset
from marginface.data.images import ANY_IMAGE
from marginface.data.list_file import LIST_NAME
from marginface.data.lmdb_file import (
    CLASSES,
    COUNT,
    IDENTITIES,
    image_key,
    label_key,
    lmdb_errors,
)
from marginface.data.recordio_writer import RecordWriter, cut_to_whole_images, property_line
from marginface.data.records import header, record_bytes
from marginface.errors import InputError
from marginface.files import atomic_write
from marginface.optional import require

_COMMIT_EVERY = 1000


class Packer(Protocol):
    """Writes images one after the other into a folder, and can go on where another one stopped.

    Attributes:
        done: images that were there when it began.
    """

    done: int

    def __init__(self, folder: Path, source: FaceDataset, order: list[int]) -> None: ...

    def holds(self, number: int, image: bytes) -> bool:
        """Whether the next of the images that were there is image `number` of the order."""

    def write(self, number: int, image: bytes) -> None:
        """Add image `number` of the order."""

    def finish(self) -> None:
        """Write what comes last."""

    def close(self) -> None:
        """Close, also after a failure; what is whole stays for the next try."""


class RecordIOPacker:
    """train.rec, train.idx and property in insightface's layout."""

    def __init__(self, folder: Path, source: FaceDataset, order: list[int]) -> None:
        self._folder, self._size = folder, 112
        self._labels = source.labels[order].tolist()
        records, index = folder / "train.rec", folder / "train.idx"
        self.done = cut_to_whole_images(records, index)
        self._records = records.open("r+b" if self.done else "w+b")
        self._records.seek(0, os.SEEK_END)
        self._index = index.open("a" if self.done else "w")
        self._writer = RecordWriter(self._records, self._index)
        self._at = len(record_bytes(header(0, (0, 0))))  # of the next record to compare

    def holds(self, number: int, image: bytes) -> bool:
        if not self._writer.images:
            self._size = _side(image)
        self._writer.skip(self._labels[number])
        expected = record_bytes(header(self._writer.images, self._labels[number]) + image)
        self._records.seek(self._at)
        self._at += len(expected)
        is_there = self._records.read(len(expected)) == expected
        self._records.seek(0, os.SEEK_END)
        return is_there

    def write(self, number: int, image: bytes) -> None:
        if not self._writer.images:
            self._size = _side(image)
        self._writer.write(image, self._labels[number])

    def finish(self) -> None:
        self._writer.finish()
        line = property_line(self._writer.identities, self._size)
        (self._folder / "property").write_text(line)

    def close(self) -> None:
        self._index.close()
        self._records.close()


class FolderPacker:
    """identity/image.jpg, with the endings that the bytes ask for."""

    list_name: str | None = None

    def __init__(self, folder: Path, source: FaceDataset, order: list[int]) -> None:
        self._folder, self._source, self._order = folder, source, order
        self.done = 0  # each file is looked for: they are written whole or not at all
        self._files: dict[str, int] = {}
        for label in np.unique(source.labels).tolist():
            _check_folder_name(source.identity(label))
        for left in folder.rglob(".*.tmp"):
            left.unlink()

    def holds(self, number: int, image: bytes) -> bool:
        raise AssertionError("nothing is taken as there unseen")

    def write(self, number: int, image: bytes) -> None:
        index = self._order[number]
        label = int(self._source.labels[index])
        name = self._name(index, label, _suffix(image))
        self._files[name] = label
        path = self._folder / name
        if not path.is_file() or path.read_bytes() != image:
            path.parent.mkdir(exist_ok=True)
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_bytes(image)
            temporary.replace(path)

    def _name(self, index: int, label: int, suffix: str) -> str:
        folder, stem = self._source.identity(label), self._source.stem(index)
        name = f"{folder}/{stem}{suffix}"
        # a.jpg beside a.png, both of them JPEGs
        return f"{folder}/{stem}-{index}{suffix}" if name in self._files else name

    def finish(self) -> None:
        if self.list_name is not None:
            text = "".join(f"{name}\t{label}\n" for name, label in self._files.items())
            with atomic_write(self._folder / self.list_name) as file:
                file.write(text.encode(errors="surrogateescape"))

    def close(self) -> None:
        pass


class ListPacker(FolderPacker):
    """The same, with the paths and class numbers in a list."""

    list_name = LIST_NAME


class LMDBPacker:
    """One database, committed every so many images."""

    def __init__(self, folder: Path, source: FaceDataset, order: list[int]) -> None:
        lmdb = require("lmdb", extra="lmdb")
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


PACKERS: dict[str, type[Packer]] = {
    "recordio": RecordIOPacker,
    "folder": FolderPacker,
    "list": ListPacker,
    "lmdb": LMDBPacker,
}


def _check_folder_name(name: str) -> None:
    """InputError for an identity that is no name of a visible folder."""
    if not name or name[0] in ".#" or any(c in name for c in "/\0\t\n\r"):
        raise InputError(
            f"identity {name!r} cannot be the name of a folder; rename it in the source, or pack "
            "into recordio or lmdb"
        )


def _side(image: bytes) -> int:
    """Height in pixels, for RecordIO's property file."""
    try:
        return ANY_IMAGE.decode(image).shape[0]
    except InputError:  # copied unseen
        return 112


def _suffix(image: bytes) -> str:
    """The ending of a file with these bytes."""
    for start, suffix in ((b"\x89PNG", ".png"), (b"BM", ".bmp"), (b"RIFF", ".webp")):
        if image.startswith(start):
            return suffix
    return ".jpg"
