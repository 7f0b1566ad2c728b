"""Write any dataset in another format: streaming, resumable, and whole or not at all."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from marginface.console import warn_here
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
from marginface.errors import InputError, unknown_name
from marginface.files import atomic_write
from marginface.optional import require

Faulty = Literal["stop", "skip", "copy"]
_PROGRESS = "pack.json"
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
        """Write what comes last, and close."""

    def close(self) -> None:
        """Close after a failure; what is whole stays for the next try."""


def pack(
    source: FaceDataset,
    target: str | Path,
    format: str,
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
    faulty: Faulty = "stop",
) -> int:
    """Write `source` as `format` into the new folder `target`; returns the images left out.

    Images are copied byte for byte, ordered by identity. They are written into a neighbour of
    `target`, which is renamed at the end: `target` is whole or not there. After an interruption
    the same call compares what the neighbour holds with the source and goes on from there.

    Args:
        source: what to write.
        target: a folder that does not exist or is empty.
        format: recordio, folder, list or lmdb.
        report: called with the images done and all of them.
        faulty: stop at an image that cannot be decoded, skip it, or copy all without looking.

    Raises:
        InputError: an unknown format, a target that is not empty, a faulty image, or no space left.
    """
    target = Path(target).absolute()
    if format not in PACKERS:
        raise InputError(unknown_name("format to write", format, PACKERS))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists; choose another name, nothing is overwritten")
    order = np.argsort(source.labels, kind="stable").tolist()
    partial = target.with_name(f".{target.name}.partial")
    try:
        with _begun(partial, {"format": format, "source": source.fingerprint()}):
            packer = PACKERS[format](partial, source, order)
            try:
                skipped = _write_all(packer, source, order, report, faulty)
                packer.finish()
            finally:
                packer.close()
            _publish(partial, target)
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"packing into {target} stopped: {error.strerror or error}. {partial} holds what is "
            "done; make room (or mend the cause) and repeat the command to go on"
        ) from error
    return skipped


def _write_all(
    packer: Packer,
    source: FaceDataset,
    order: list[int],
    report: Callable[[int, int], None],
    faulty: Faulty,
) -> int:
    written = 0
    kept = np.zeros(source.num_classes, bool)
    for number, index in enumerate(order):
        image = _checked(source, index, faulty)
        if image is not None:
            if written >= packer.done:
                packer.write(number, image)
            elif not packer.holds(number, image):
                raise InputError(
                    f"what was packed before differs from {source.describe(index)}: the source "
                    "was changed or images were skipped otherwise; remove the hidden .partial "
                    "folder beside the target to begin anew"
                )
            written += 1
            kept[source.labels[index]] = True
        if number % 100 == 99 or number + 1 == len(order):
            report(number + 1, len(order))
    lost = np.setdiff1d(source.labels, np.flatnonzero(kept))
    if len(lost):
        raise InputError(
            f"identity {source.identity(int(lost[0]))} of {source.where} has no image that can be "
            "read; remove it there"
        )
    return len(order) - written


def _checked(source: FaceDataset, index: int, faulty: Faulty) -> bytes | None:
    """The bytes of an image, None for one to skip."""
    try:
        image = source.image_bytes(index)
        if not image:
            raise InputError("no bytes")
        if faulty != "copy":
            ANY_IMAGE.decode(image)
    except InputError as error:
        if faulty == "skip":
            warn_here(f"left out: {source.describe(index)}: {error}")
            return None
        raise InputError(
            f"{source.describe(index)}: {error}; mend or remove it, or leave such images out with "
            "--faulty skip"
        ) from error
    return image


@contextmanager
def _begun(partial: Path, description: dict[str, Any]) -> Iterator[None]:
    """The folder, made or found to be begun for the same, and kept from other processes."""
    partial.mkdir(parents=True, exist_ok=True)
    path = partial / _PROGRESS
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process is writing {partial}; wait for it") from error
        file.seek(0)
        text, wanted = file.read(), json.dumps(description)
        if text and text != wanted:
            raise InputError(
                f"{partial} was begun from other data or for another format; remove it to begin "
                "anew"
            )
        if not text:
            file.write(wanted)
            file.flush()
        yield


def _publish(partial: Path, target: Path) -> None:
    """Everything onto the disk, then the name: only then is the description gone."""
    for folder, _, names in os.walk(partial):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
    (partial / _PROGRESS).unlink()
    partial.replace(target)


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
