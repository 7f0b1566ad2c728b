"""The bytes of MXNet RecordIO: records and their parts, the index, labels next to the file.

A record is the magic word, a length word, the payload and zero padding to four bytes. The payload
is a 24-byte header (flag, label, id, id2), `flag` float32 labels and then an image. A payload that
contains the magic word at a multiple of four is cut there into parts, without the word.
"""

import itertools
import mmap
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marginface.utils.errors import InputError

MAGIC = struct.pack("<I", 0xCED7230A)
WORDS = struct.Struct("<II")  # magic, part flag << 29 | length
HEADER = struct.Struct("<IfQQ")
PREFIX = WORDS.size + HEADER.size
_START = struct.Struct("<III")  # magic, part flag and length, number of labels
PART_SHIFT, LENGTH_MASK = 29, (1 << 29) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)
EXACT_FLOAT32 = 1 << 24  # labels are float32, which counts exactly only up to here
_BLOCK = 1 << 22  # small blocks stay in the processor's cache

Offsets = NDArray[np.int64]


def header(number: int, label: int | tuple[int, int]) -> bytes:
    """The header of record `number`: one label, or two as insightface's identity records have."""
    if isinstance(label, tuple):
        # insightface's packer sets id2 of record 0, and only there.
        return HEADER.pack(len(label), 0.0, number, number == 0) + struct.pack("<2f", *label)
    return HEADER.pack(0, float(label), number, 0)


def record_bytes(payload: bytes) -> bytes:
    """A record as it is on disk: the payload cut at every aligned magic word."""
    cuts, at = [0], payload.find(MAGIC)
    while at >= 0:
        if at % 4 == 0:
            cuts.append(at)
            at += 3
        at = payload.find(MAGIC, at + 1)
    cuts.append(len(payload))
    parts = []
    for number, (start, end) in enumerate(itertools.pairwise(cuts)):
        body = payload[start + (4 if number else 0) : end]
        is_last = number == len(cuts) - 2
        part = (LAST if is_last else MIDDLE) if number else (WHOLE if is_last else FIRST)
        if len(body) > LENGTH_MASK:
            raise InputError(f"a record of {len(body)} bytes exceeds RecordIO's {LENGTH_MASK}")
        word = part << PART_SHIFT | len(body)
        parts.append(MAGIC + struct.pack("<I", word) + body + bytes(padding(len(body))))
    return b"".join(parts)


def payload_at(data: "mmap.mmap | bytes", offset: int) -> bytes:
    """The payload of the record at `offset`, its parts joined with the words cut out of it.

    Raises:
        InputError: no record begins there, or the data ends inside it.
    """
    parts: list[bytes] = []
    while True:
        words = data[offset : offset + WORDS.size]
        if len(words) < WORDS.size or not words.startswith(MAGIC):
            raise InputError(f"no record at byte {offset}; the file is damaged")
        word = WORDS.unpack(words)[1]
        length, part = word & LENGTH_MASK, word >> PART_SHIFT
        check_part(part, bool(parts), offset)
        body = data[offset + WORDS.size : offset + WORDS.size + length]
        if len(body) < length:
            raise InputError("the file ends inside the record; it is truncated")
        parts.append(body)
        if part in (WHOLE, LAST):
            return parts[0] if len(parts) == 1 else MAGIC.join(parts)
        offset += WORDS.size + length + padding(length)


def image_at(data: "mmap.mmap | bytes", offset: int) -> bytes:
    """The encoded image of the record at `offset`; copied once where it is one part.

    Raises:
        InputError: as `payload_at`, or a record shorter than its header.
    """
    words = data[offset : offset + PREFIX]
    if len(words) == PREFIX and words.startswith(MAGIC):
        _, word, flag = _START.unpack_from(words)
        start = PREFIX + 4 * flag
        end = WORDS.size + word  # the part flag of a whole record is 0
        if word >> PART_SHIFT == WHOLE and start <= end and offset + end <= len(data):
            return data[offset + start : offset + end]
    return image_of(payload_at(data, offset))


def image_of(payload: bytes) -> bytes:
    """What follows the header and the labels it announces."""
    if len(payload) < HEADER.size:
        raise InputError(f"a record of {len(payload)} bytes, less than its header")
    flag = int.from_bytes(payload[:4], "little")
    return payload[HEADER.size + 4 * flag :]


def check_part(part: int, is_inside: bool, offset: int) -> None:
    """InputError unless parts come as WHOLE, or as FIRST, MIDDLE, ..., LAST."""
    if part not in ((MIDDLE, LAST) if is_inside else (WHOLE, FIRST)):
        raise InputError(
            f"part {part} of a record at byte {offset} is out of place; the file is damaged"
        )


def padding(length: int) -> int:
    """Zero bytes after a payload, up to a multiple of four."""
    return -length % 4


def read_index(path: Path) -> tuple[Offsets, Offsets]:
    """Keys and byte offsets of a .idx file, lines `key<TAB>offset`; 40 M lines take seconds.

    Raises:
        InputError: anything else in the file.
    """
    # Counted first, so that 40 M lines are never in memory twice.
    lines = sum(block.count(b"\n") for block in _blocks(path)) + 1
    keys, offsets = np.empty(lines, np.int64), np.empty(lines, np.int64)
    filled, rest = 0, b""
    # The last line may lack its end.
    for block in itertools.chain(_blocks(path), [b"\n"]):
        end = block.rfind(b"\n") + 1
        part = _index_table(rest + block[:end], path) if end else np.empty((0, 2), np.int64)
        if len(part):
            keys[filled : filled + len(part)] = part[:, 0]
            offsets[filled : filled + len(part)] = part[:, 1]
        filled += len(part)
        rest = block[end:] if end else rest + block
        if len(rest) > 100:
            raise InputError(f"{path}: expected lines 'key<TAB>offset', got {rest[:40]!r} ...")
    if not filled:
        raise InputError(f"{path}: expected lines 'key<TAB>offset', the file is empty")
    return keys[:filled], offsets[:filled]


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _index_table(text: bytes, path: Path) -> Offsets:
    table = _pairs(text)
    if table is None:  # a byte-order mark, empty lines, blanks, comments
        words = [line.split() for line in text.removeprefix(b"\xef\xbb\xbf").splitlines()]
        words = [line for line in words if line and not line[0].startswith(b"#")]
        wrong = [line for line in words if len(line) != 2 or not all(map(bytes.isdigit, line))]
        table = None if wrong else _pairs(b"".join(b"\t".join(line) + b"\n" for line in words))
        if table is None:
            got = b" ".join(wrong[0] if wrong else words[0])[:40].decode(errors="replace")
            raise InputError(f"{path}: expected lines 'key<TAB>offset', got {got!r}")
    return table


def _pairs(text: bytes) -> Offsets | None:
    """Keys and offsets of tidy lines, with one call of NumPy; None for others."""
    separators = np.frombuffer(text.translate(None, b"0123456789\r"), np.uint8)
    lines = len(separators) // 2
    if len(separators) != 2 * lines or (separators.reshape(-1, 2) != (9, 10)).any():  # tab, newline
        return None
    if not lines:
        return np.empty((0, 2), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy warns where it stops reading
        try:
            numbers = np.fromstring(text.decode("ascii"), np.int64, sep=" ")
        except (DeprecationWarning, ValueError, OverflowError):
            return None
    return numbers.reshape(-1, 2) if len(numbers) == 2 * lines else None


def walk_records(data: mmap.mmap, where: str) -> Offsets:
    """Offsets of all records of a file without an index, one after the other."""

    def starts() -> Iterator[int]:
        offset, inside = 0, False
        while offset < len(data):
            words = data[offset : offset + WORDS.size]
            if len(words) < WORDS.size or not words.startswith(MAGIC):
                raise InputError(f"{where}: no record at byte {offset}; the file is damaged")
            word = WORDS.unpack(words)[1]
            length, part = word & LENGTH_MASK, word >> PART_SHIFT
            if offset + WORDS.size + length > len(data):
                raise InputError(f"{where}: the record at byte {offset} is truncated")
            try:
                check_part(part, inside, offset)
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
            if not inside:
                yield offset
            inside = part in (FIRST, MIDDLE)
            offset += WORDS.size + length + padding(length)
        if inside:
            raise InputError(f"{where}: the last record is truncated")

    return np.fromiter(starts(), np.int64)


def read_property(path: Path) -> int | None:
    """Number of identities from a line `num_classes,height,width`, None without the file."""
    if not path.is_file():
        return None
    first = path.read_bytes()[:100].split(b",")[0].strip()
    if not first.isdigit():
        raise InputError(f"{path}: expected 'num_classes,height,width', got {first!r}")
    return int(first)


def read_lst(path: Path) -> dict[int, int]:
    """Labels by record key from train.lst: exact, where the record's float32 is not.

    Takes im2rec's lines `key<TAB>label...<TAB>path` and face2rec's `aligned<TAB>path<TAB>label...`,
    whose records are numbered from 1 in the order of the lines.

    Raises:
        InputError: a line of neither kind.
    """
    labels = {}
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, line in enumerate(filter(str.strip, file), start=1):
            fields = line.rstrip("\n").split("\t")
            try:
                if len(fields) >= 3 and _is_number(fields[1]):
                    labels[int(fields[0])] = int(float(fields[1]))
                else:
                    labels[number] = int(float(fields[2]))
            except (ValueError, IndexError, OverflowError) as error:
                raise InputError(
                    f"{path}: line {number} is neither 'key<TAB>label<TAB>path' nor "
                    f"'aligned<TAB>path<TAB>label': {line.strip()[:80]!r}"
                ) from error
    return labels


def _is_number(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdigit()
