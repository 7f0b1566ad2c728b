"""Write MXNet RecordIO in insightface's layout, byte for byte as its packer does."""

import mmap
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from marginface.data.dataset import FaceDataset
from marginface.data.formats._registry import register_writer
from marginface.data.formats.recordio.format import (
    EXACT_FLOAT32,
    header,
    image_of,
    payload_at,
    read_index,
    record_bytes,
)
from marginface.data.identity_names import NAMES
from marginface.data.images import ANY_IMAGE
from marginface.utils.errors import InputError
from marginface.utils.files import atomic_write, write_lines


def write_recordio(
    root: str | Path, images: Iterable[bytes], labels: Iterable[int], *, image_size: int = 112
) -> None:
    """Write train.rec, train.idx and property in insightface's layout (scalar labels).

    Args:
        root: folder to write into; it must not hold a train.rec yet.
        images: encoded images, read one at a time.
        labels: identity of each, 0, 1, 2, ... in order: all images of an identity together.

    Raises:
        InputError: a train.rec is there already, labels out of order, or counts that differ.
    """
    root = Path(root)
    if (root / "train.rec").exists():
        raise InputError(
            f"{root / 'train.rec'} exists; choose another folder, nothing is overwritten"
        )
    with ExitStack() as files:
        lists = files.enter_context(atomic_write(root / "property", "w"))
        index = files.enter_context(atomic_write(root / "train.idx", "w"))
        # Left last and so renamed first: without it the other two mean nothing.
        records = files.enter_context(atomic_write(root / "train.rec", "w+b"))
        writer = RecordFileWriter(records, index)
        for image, label in zip(images, labels, strict=True):
            writer.write(image, label)
        writer.finish()
        lists.write(property_line(writer.identities, image_size))


def property_line(identities: int, image_size: int) -> str:
    """What insightface's `property` file holds."""
    return f"{identities},{image_size},{image_size}\n"


class RecordFileWriter:
    """Writes images one at a time into open files, then the identity records.

    Args:
        records: train.rec, open for reading and writing, empty or as `resumed` left it.
        index: train.idx, open for writing text.

    Attributes:
        images: written so far.
        identities: begun so far.
    """

    def __init__(self, records: IO[bytes], index: IO[str]) -> None:
        self._records, self._index = records, index
        self._starts: list[int] = []  # key of each identity's first image
        self.images = 0
        if not records.tell():
            # Written again at the end, when its two counts are known: same length.
            self._append(0, header(0, (0, 0)))

    @property
    def identities(self) -> int:
        return len(self._starts)

    def skip(self, label: int) -> None:
        """Count an image that the files hold already."""
        self.images += 1
        if label == len(self._starts):
            self._starts.append(self.images)

    def write(self, image: bytes, label: int) -> None:
        """Append an image.

        Raises:
            InputError: a label that does not follow the one before.
        """
        if label not in (len(self._starts) - 1, len(self._starts)) or label < 0:
            raise InputError(
                f"image {self.images} has label {label} after label {len(self._starts) - 1}; "
                "RecordIO needs identities numbered 0, 1, 2, ... with their images together"
            )
        if label >= EXACT_FLOAT32:
            raise InputError(f"label {label} does not fit RecordIO's float32 labels")
        self.skip(label)
        self._append(self.images, header(self.images, label) + image)

    def finish(self) -> None:
        """Append the identity records and put the counts into record 0.

        Raises:
            InputError: there were no images.
        """
        if not self._starts:
            raise InputError("there are no images to write")
        first = self.images + 1
        ends = [*self._starts[1:], first]
        for identity, span in enumerate(zip(self._starts, ends, strict=True)):
            self._append(first + identity, header(first + identity, span))
        self._records.seek(0)
        self._records.write(record_bytes(header(0, (first, first + len(self._starts)))))
        self._records.seek(0, os.SEEK_END)

    def _append(self, key: int, payload: bytes) -> None:
        offset = self._records.tell()
        self._records.write(record_bytes(payload))
        self._index.write(f"{key}\t{offset}\n")


def cut_to_whole_images(records: Path, index: Path) -> int:
    """Cut both files of an interrupted writer after the last image they hold; how many there are.

    The two are flushed at different times, so either may be ahead, and end anywhere. Identity
    records are cut off too: they are written anew.
    """
    text = index.read_bytes() if index.is_file() and records.is_file() else b""
    text = text[: text.rfind(b"\n") + 1]
    if not text:
        return 0
    index.write_bytes(text)
    offsets = read_index(index)[1].tolist()
    kept, end = len(offsets), 0
    with records.open("r+b") as file:
        if records.stat().st_size:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            while kept and not end:
                end = _end_of_image(data, offsets[kept - 1], is_first=kept == 1)
                kept -= not end
            data.close()
        else:
            kept = 0
        file.truncate(end)
    os.truncate(index, sum(len(f"{k}\t{offset}\n") for k, offset in enumerate(offsets[:kept])))
    return max(kept - 1, 0)


def _end_of_image(data: mmap.mmap, offset: int, is_first: bool) -> int:
    """Where the record at `offset` ends, 0 unless it is whole and an image or record 0."""
    try:
        payload = payload_at(data, offset)
    except InputError:
        return 0
    end = offset + len(record_bytes(payload))
    return end if end <= len(data) and (is_first or image_of(payload)) else 0


@register_writer("recordio")
class RecordIOWriter:
    """train.rec, train.idx and property in insightface's layout."""

    def __init__(self, folder: Path, source: FaceDataset, order: list[int]) -> None:
        self._folder, self._size = folder, 112
        self._labels, self._names = source.labels[order].tolist(), source.identities
        records, index = folder / "train.rec", folder / "train.idx"
        self.done = cut_to_whole_images(records, index)
        self._records = records.open("r+b" if self.done else "w+b")
        self._records.seek(0, os.SEEK_END)
        self._index = index.open("a" if self.done else "w")
        self._writer = RecordFileWriter(self._records, self._index)
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
        if self._names is not None:
            write_lines(self._folder / NAMES, self._names)

    def close(self) -> None:
        self._index.close()
        self._records.close()


def _side(image: bytes) -> int:
    """Height in pixels, for RecordIO's property file."""
    try:
        return ANY_IMAGE.decode(image).shape[0]
    except InputError:  # copied unseen
        return 112
