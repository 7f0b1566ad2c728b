"""MXNet RecordIO (train.rec + train.idx) in pure Python: insightface's layout and im2rec's.

A record is the magic word, a length word, the payload and zero padding to four bytes. The payload
is a 24-byte header (flag, label, id, id2), `flag` float32 labels and then a JPEG. A payload that
contains the magic word at a multiple of four is cut there into parts, without the word.
The headers of all records are read at once through a memory map, images one at a time.
"""

import itertools
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from marginface.data.dataset import FaceDataset
from marginface.data.images import Pixels, decode_rgb
from marginface.errors import InputError, MissingInputError
from marginface.files import atomic_write

MAGIC = struct.pack("<I", 0xCED7230A)
WORDS = struct.Struct("<II")  # magic, part flag << 29 | length
HEADER = struct.Struct("<IfQQ")
PREFIX = WORDS.size + HEADER.size
PART_SHIFT, LENGTH_MASK = 29, (1 << 29) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)
EXACT_FLOAT32 = 1 << 24  # labels are float32, which counts exactly only up to here
_CHUNK = 1 << 20


class RecordIODataset(FaceDataset):
    """Images of `root`/train.rec, found through train.idx; `property` states the identities.

    A record is an image when bytes follow its header and labels. In insightface's layout record 0
    and the identity records have none; im2rec has no such records. So nothing depends on the counts
    in record 0, which are float32 and wrong above 2^24.

    Raises:
        MissingInputError: no train.rec or train.idx.
        InputError: offsets outside the file, a truncated file, labels that are no class numbers.
    """

    def __init__(self, root: str | Path, *, image_size: int = 112, resize: bool = False) -> None:
        root = Path(root)
        self.path = root / "train.rec"
        for path in (self.path, root / "train.idx"):
            if not path.is_file():
                raise MissingInputError(
                    f"no file {path}; data.root must name a folder with train.rec and train.idx"
                )
        self._map: NDArray[np.uint8] | None = None
        keys, offsets = read_index(root / "train.idx")
        labels, is_image = self._scan(keys, offsets)
        self.keys, self.offsets = keys[is_image], offsets[is_image]
        super().__init__(
            self._class_numbers(labels[is_image]),
            read_property(root / "property"),
            image_size=image_size,
            resize=resize,
            where=str(self.path),
        )

    def record(self, index: int) -> bytes:
        """The encoded image `index`, byte for byte as it was packed."""
        payload = self._payload(int(self.offsets[index]), self.describe(index))
        flag = HEADER.unpack_from(payload)[0]
        return payload[HEADER.size + 4 * flag :]

    def pixels(self, index: int) -> Pixels:
        return decode_rgb(self.record(index), self.describe(index))

    def describe(self, index: int) -> str:
        return f"record {self.keys[index]} of {self.path}"

    def __getstate__(self) -> dict[str, Any]:
        # Workers map the file themselves; a pickled memory map would be a copy of all of it.
        return self.__dict__ | {"_map": None}

    @property
    def _bytes(self) -> NDArray[np.uint8]:
        if self._map is None:
            self._map = np.memmap(self.path, np.uint8, "r")
        return self._map

    def _scan(
        self, keys: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """First label of every record, and whether the record is an image."""
        labels = np.zeros(len(keys), np.float32)
        is_image = np.zeros(len(keys), bool)
        for start in range(0, len(keys), _CHUNK):
            part = slice(start, start + _CHUNK)
            labels[part], is_image[part] = self._scan_part(keys[part], offsets[part])
        return labels, is_image

    def _scan_part(
        self, keys: NDArray[np.int64], offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        size = self.path.stat().st_size
        self._refuse(
            (offsets < 0) | (offsets + PREFIX > size),
            keys,
            offsets,
            f"which is outside the file ({size} bytes): the index belongs to another file, "
            "or this one is truncated",
        )
        prefix = self._bytes[offsets[:, None] + np.arange(PREFIX)]
        magic, word, flag = (_column(prefix, i, "<u4") for i in (0, 4, 8))
        label = _column(prefix, 12, "<f4")
        self._refuse(
            magic != int.from_bytes(MAGIC, "little"),
            keys,
            offsets,
            "where no record begins: the index belongs to another file, or this one is damaged",
        )
        length = (word & LENGTH_MASK).astype(np.int64)
        self._refuse(
            offsets + WORDS.size + length > size,
            keys,
            offsets,
            f"but the file ends before the record does ({size} bytes): it is truncated",
        )
        listed = np.flatnonzero(flag)
        if len(listed):
            first = self._bytes[offsets[listed, None] + PREFIX + np.arange(4)]
            label[listed] = _column(first, 0, "<f4")
        body = length - HEADER.size - 4 * flag.astype(np.int64)
        return label, (body > 0) | (word >> PART_SHIFT != WHOLE)

    def _refuse(
        self,
        wrong: NDArray[np.bool_],
        keys: NDArray[np.int64],
        offsets: NDArray[np.int64],
        why: str,
    ) -> None:
        if wrong.any():
            first = int(wrong.argmax())
            raise InputError(
                f"{self.path}: train.idx puts record {keys[first]} at byte {offsets[first]}, {why}"
            )

    def _class_numbers(self, labels: NDArray[np.float32]) -> NDArray[np.int64]:
        wrong = ~((labels >= 0) & (labels < EXACT_FLOAT32) & (labels == np.floor(labels)))
        if wrong.any():
            first = int(wrong.argmax())
            raise InputError(
                f"{self.describe(first)}: label {labels[first]} is no class number in "
                f"[0, {EXACT_FLOAT32}), the range float32 labels can hold"
            )
        return labels.astype(np.int64)

    def _payload(self, offset: int, what: str) -> bytes:
        """The payload at `offset`, its parts joined with the magic word that was cut out."""
        parts: list[bytes] = []
        while True:
            head = self._bytes[offset : offset + WORDS.size].tobytes()
            if len(head) < WORDS.size or not head.startswith(MAGIC):
                raise InputError(f"{what}: no record at byte {offset}; the file is damaged")
            word = WORDS.unpack(head)[1]
            length, part = word & LENGTH_MASK, word >> PART_SHIFT
            body = self._bytes[offset + WORDS.size : offset + WORDS.size + length].tobytes()
            if len(body) < length:
                raise InputError(f"{what}: the file ends inside it; it is truncated")
            parts.append(body)
            if part in (WHOLE, LAST):
                return MAGIC.join(parts)
            offset += WORDS.size + length + _padding(length)


def read_index(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys and byte offsets of a .idx file, lines `key<TAB>offset`."""
    try:
        table = np.loadtxt(path, np.int64, delimiter="\t", ndmin=2)
    except ValueError as error:
        raise InputError(f"{path}: expected lines 'key<TAB>offset' ({error})") from error
    if table.shape[1:] != (2,) or not len(table):
        raise InputError(f"{path}: expected lines 'key<TAB>offset', got {table.shape}")
    return table[:, 0], table[:, 1]


def read_property(path: Path) -> int | None:
    """Number of identities from a line `num_classes,height,width`, None without the file."""
    if not path.is_file():
        return None
    first = path.read_text().split(",")[0].strip()
    if not first.isdigit():
        raise InputError(f"{path}: expected 'num_classes,height,width', got {first!r}")
    return int(first)


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
    starts: list[int] = []  # key of each identity's first image
    with atomic_write(root / "train.idx", "w") as index, atomic_write(root / "train.rec") as rec:
        # Record 0 is written again at the end, when its two counts are known: same length.
        _write_record(rec, index, 0, _header(0, (0, 0)))
        key = 0
        for key, (image, label) in enumerate(zip(images, labels, strict=True), start=1):
            if label == len(starts):
                starts.append(key)
            elif label != len(starts) - 1:
                raise InputError(
                    f"image {key - 1} has label {label} after label {len(starts) - 1}; RecordIO "
                    "needs identities numbered 0, 1, 2, ... with their images together"
                )
            _write_record(rec, index, key, _header(key, label) + image)
        if not starts:
            raise InputError("there are no images to write")
        first_identity, ends = key + 1, [*starts[1:], key + 1]
        for identity, span in enumerate(zip(starts, ends, strict=True)):
            key = first_identity + identity
            _write_record(rec, index, key, _header(key, span))
        rec.seek(0)
        rec.write(b"".join(_parts(_header(0, (first_identity, first_identity + len(starts))))))
        rec.seek(0, 2)
    (root / "property").write_text(f"{len(starts)},{image_size},{image_size}\n")


def _header(number: int, label: int | tuple[int, int]) -> bytes:
    if isinstance(label, tuple):
        # insightface's packer sets id2 of record 0, and only there.
        return HEADER.pack(len(label), 0.0, number, number == 0) + struct.pack("<2f", *label)
    return HEADER.pack(0, float(label), number, 0)


def _write_record(rec: IO[bytes], index: IO[str], key: int, payload: bytes) -> None:
    index.write(f"{key}\t{rec.tell()}\n")
    for part in _parts(payload):
        rec.write(part)


def _parts(payload: bytes) -> Iterator[bytes]:
    """The bytes of a record on disk: the payload cut at every aligned magic word."""
    cuts, at = [0], payload.find(MAGIC)
    while at >= 0:
        if at % 4 == 0:
            cuts.append(at)
            at += 3
        at = payload.find(MAGIC, at + 1)
    cuts.append(len(payload))
    for number, (start, end) in enumerate(itertools.pairwise(cuts)):
        body = payload[start + (4 if number else 0) : end]
        is_last = number == len(cuts) - 2
        part = (LAST if is_last else MIDDLE) if number else (WHOLE if is_last else FIRST)
        if len(body) > LENGTH_MASK:
            raise InputError(f"a record of {len(body)} bytes exceeds RecordIO's {LENGTH_MASK}")
        word = part << PART_SHIFT | len(body)
        yield MAGIC + struct.pack("<I", word) + body + bytes(_padding(len(body)))


def _padding(length: int) -> int:
    return -length % 4


def _column(table: NDArray[np.uint8], start: int, dtype: str) -> NDArray[Any]:
    return table[:, start : start + 4].copy().view(dtype)[:, 0]
