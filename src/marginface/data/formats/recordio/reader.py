"""Images in MXNet RecordIO, insightface's layout and im2rec's, read in pure Python."""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from marginface.data.dataset import FaceDataset, ReadingOptions
from marginface.data.formats._registry import register_format
from marginface.data.formats.recordio.format import (
    EXACT_FLOAT32,
    HEADER,
    LAST,
    LENGTH_MASK,
    MAGIC,
    PART_SHIFT,
    PREFIX,
    WHOLE,
    WORDS,
    Offsets,
    image_at,
    padding,
    read_index,
    read_lst,
    read_property,
    walk_records,
)
from marginface.data.identity_names import read_names
from marginface.data.image_dataset import Labels
from marginface.data.image_files import visible
from marginface.utils.console import rank_zero_warn
from marginface.utils.errors import InputError, MissingInputError

_CHUNK = 1 << 20


@register_format("recordio", suffixes=(".rec",), rank=10)
class RecordIODataset(FaceDataset):
    """Images of `root`/train.rec, found through train.idx; `property` states the identities.

    A record is an image when bytes follow its header and labels. In insightface's layout record 0
    and the identity records have none; im2rec has no such records. So nothing depends on the counts
    in record 0, which are float32 and wrong above 2^24. Labels from 2^24 on come from train.lst.

    Args:
        root: folder with train.rec (or one other .rec file), or the .rec file itself. Without the
            .idx file the records are found one after the other, which reads the whole file.
        options: see `FaceDataset`.

    Raises:
        MissingInputError: no .rec file.
        InputError: offsets outside the file, a truncated file, labels that are not class numbers.
    """

    def __init__(self, root: str | Path, **options: Unpack[ReadingOptions]) -> None:
        self.path = find_record_file(Path(root))
        self._map: mmap.mmap | None = None
        if not self.path.stat().st_size:
            raise InputError(f"{self.path} is empty")
        keys, offsets = self._index()
        values, is_image = self._scan(keys, offsets)
        self._warn_of_rest(int(offsets.max()))
        if not is_image.all():  # one by one, so that few copies live at a time
            offsets = offsets[is_image]
            keys = keys[is_image]
            values = values[is_image]
        self.keys, self.offsets = keys, offsets
        labels, stated = self._class_numbers(values), read_property(self.path.with_name("property"))
        identities = None
        if len(labels):
            identities = read_names(self.path.parent, stated or int(labels.max()) + 1)
        super().__init__(labels, stated, where=str(self.path), identities=identities, **options)

    def image_bytes(self, index: int) -> bytes:
        return image_at(self._bytes(), int(self.offsets[index]))

    def describe(self, index: int) -> str:
        return f"record {self.keys[index]} of {self.path}"

    def __getstate__(self) -> dict[str, Any]:
        # Workers map the file themselves; a memory map cannot be sent to them.
        return self.__dict__ | {"_map": None}

    def _bytes(self) -> mmap.mmap:
        if self._map is None:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def _index(self) -> tuple[NDArray[Any], Offsets]:
        path = self.path.with_suffix(".idx")
        if path.is_file():
            keys, offsets = read_index(path)
            return keys.astype(np.int32 if keys.max() < 1 << 31 else np.int64), offsets
        offsets = walk_records(self._bytes(), str(self.path))
        if (offsets > len(self._bytes()) - PREFIX).any():
            return np.arange(len(offsets)), offsets  # refused below, with the place
        words = np.frombuffer(self._bytes(), np.uint32, len(self._bytes()) // 4)
        keys = words[offsets // 4 + 4].astype(np.int64)  # the id in the header
        is_key = len(np.unique(keys)) == len(keys)
        return (keys if is_key else np.arange(len(offsets))), offsets

    def _warn_of_rest(self, last: int) -> None:
        """Say so when records follow the last one of the index: it may have been cut short."""
        data = self._bytes()
        while last + WORDS.size <= len(data):
            word = int.from_bytes(data[last + 4 : last + 8], "little")
            length = word & LENGTH_MASK
            last += WORDS.size + length + padding(length)
            if word >> PART_SHIFT in (WHOLE, LAST):
                break
        if last < len(data):
            rank_zero_warn(
                f"{self.path}: its index ends {len(data) - last} bytes before the file does; the "
                "records there are not used. Remove the index to have all records found"
            )

    def _scan(
        self, keys: NDArray[Any], offsets: Offsets
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """First label of every record, and whether the record is an image."""
        labels = np.empty(len(keys), np.float32)
        is_image = np.empty(len(keys), bool)
        for start in range(0, len(keys), _CHUNK):
            part = slice(start, start + _CHUNK)
            labels[part], is_image[part] = self._scan_part(keys[part], offsets[part])
            # The pages looked at would otherwise count as this process's memory.
            self._bytes().madvise(mmap.MADV_DONTNEED)
        return labels, is_image

    def _scan_part(
        self, keys: NDArray[Any], offsets: Offsets
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        data = self._bytes()
        size = len(data)
        self._refuse(
            (offsets < 0) | (offsets > size - PREFIX),
            keys,
            offsets,
            f"which is outside the file ({size} bytes): the index belongs to another file, "
            "or this one is truncated",
        )
        # Records begin at multiples of four, so the file is a table of words.
        words = np.frombuffer(data, np.uint32, size // 4)
        at = offsets // 4
        self._refuse(
            (offsets % 4 != 0) | (words[at] != int.from_bytes(MAGIC, "little")),
            keys,
            offsets,
            "where no record begins: the index belongs to another file, or this one is damaged",
        )
        word, flag, label = words[at + 1], words[at + 2], words[at + 3].view(np.float32)
        length = (word & LENGTH_MASK).astype(np.int64)
        self._refuse(
            offsets + WORDS.size + length > size,
            keys,
            offsets,
            f"but the file ends before the record does ({size} bytes): it is truncated",
        )
        body = length - HEADER.size - 4 * flag.astype(np.int64)
        whole = word >> PART_SHIFT == WHOLE
        self._refuse(
            (length < HEADER.size) | (whole & (body < 0)),
            keys,
            offsets,
            "whose header announces more than the record holds: the file is damaged",
        )
        listed = np.flatnonzero(flag)
        self._refuse(
            offsets[listed] > size - PREFIX - 4,
            keys[listed],
            offsets[listed],
            f"but the file ends before its labels do ({size} bytes): it is truncated",
        )
        label[listed] = words[at[listed] + PREFIX // 4].view(np.float32)
        return label, (body > 0) | ~whole

    def _refuse(
        self, wrong: NDArray[np.bool_], keys: NDArray[Any], offsets: Offsets, why: str
    ) -> None:
        if wrong.any():
            first = int(wrong.argmax())
            raise InputError(
                f"{self.path}: {self.path.stem}.idx puts record {keys[first]} at byte "
                f"{offsets[first]}, {why}"
            )

    def _class_numbers(self, labels: NDArray[np.float32]) -> Labels:
        with np.errstate(invalid="ignore"):  # nan and inf are found in the next line
            numbers = labels.astype(np.int64)
        wrong = (numbers != labels) | (numbers < 0) | (numbers >= 1 << 31)
        if not len(labels):
            return numbers
        lst = self.path.with_suffix(".lst")
        if not wrong.any() and labels.max() >= EXACT_FLOAT32:
            if lst.is_file():
                return self._listed_numbers(labels, lst)
            wrong = labels >= EXACT_FLOAT32
        if wrong.any():
            first = int(wrong.argmax())
            raise InputError(
                f"{self.describe(first)}: label {labels[first]} is not a class number in "
                f"[0, {EXACT_FLOAT32}), the range float32 labels can hold; exact labels above it "
                f"are read from {lst.name} next to the file"
            )
        return numbers

    def _listed_numbers(self, labels: NDArray[np.float32], lst: Path) -> Labels:
        listed = read_lst(lst)
        exact = np.array([listed.get(int(key), -1) for key in self.keys], np.int64)
        wrong = exact.astype(np.float32) != labels
        if wrong.any():
            first = int(wrong.argmax())
            raise InputError(
                f"{lst}: label {exact[first]} of record {self.keys[first]} is not the record's "
                f"{labels[first]:.0f}; the list belongs to another file"
            )
        return exact


def find_record_file(root: Path) -> Path:
    """`root` itself, its train.rec, or the only .rec file in it.

    Raises:
        MissingInputError: none.
        InputError: several, none of them train.rec.
    """
    if root.is_file():
        return root
    path = root / "train.rec"
    if path.is_file():
        return path
    others: Sequence[Path] = visible(root, "*.rec") if root.is_dir() else []
    if not others:
        raise MissingInputError(
            f"no file {path}; data.root must name a folder with train.rec and train.idx"
        )
    if len(others) > 1:
        names = ", ".join(other.name for other in others)
        raise InputError(f"{root} holds {names}; name one of them instead of the folder")
    return others[0]
