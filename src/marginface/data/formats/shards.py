"""Images in tar or zip shards, webdataset's layout: the members of a sample share their name.

`000017.jpg` with `000017.cls` (the class number or name as text) or `000017.json` (`label` or
`identity`); without either, the member's folder is the identity: `alice/1.jpg`. Members are read
in place, through a memory map, in any order.
"""

import json
import mmap
import struct
import tarfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Unpack

from marginface.data.dataset import FaceDataset, ReadingOptions
from marginface.data.formats._registry import register_format
from marginface.data.formats.list import number_labels
from marginface.data.image_files import is_hidden, is_image_name, visible
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.hashes import short_hash

ARCHIVES = (".tar", ".zip")
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member: magic, length of name, of extra field


class Member(NamedTuple):
    """Where a file is in a shard."""

    name: str
    offset: int
    size: int  # as it is stored
    full_size: int
    is_deflated: bool


@register_format("shards", suffixes=ARCHIVES, rank=40)
class ShardDataset(FaceDataset):
    """Images of all .tar and .zip files of a folder, or of one such file.

    Raises:
        MissingInputError: no shard.
        InputError: a shard that is damaged or compressed as a whole, or an image without label.
    """

    def __init__(self, root: str | Path, **options: Unpack[ReadingOptions]) -> None:
        root = Path(root)
        self.root = root
        self.shards = find_shards(root)
        self._members: list[Member] = []
        self._first: list[int] = []  # number of each shard's first image
        words: list[str] = []
        for shard in self.shards:
            self._first.append(len(self._members))
            for member, label in read_shard(shard):
                self._members.append(member)
                words.append(label)
        if not words:
            raise InputError(f"{root}: the shards hold no images")
        labels, identities = number_labels(words, root)
        self._maps: dict[int, mmap.mmap] = {}
        super().__init__(labels, where=str(root), identities=identities, **options)

    def image_bytes(self, index: int) -> bytes:
        member = self._members[index]
        return read_member(self._map(self._shard(index)), member)

    def describe(self, index: int) -> str:
        return f"{self._members[index].name} in {self.shards[self._shard(index)]}"

    def fingerprint(self) -> dict[str, Any]:
        names = "\n".join(f"{m.name}\t{m.size}" for m in self._members)
        return super().fingerprint() | {"members_sha256": short_hash(names)}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_maps": {}}

    def _shard(self, index: int) -> int:
        return bisect_right(self._first, index) - 1

    def _map(self, shard: int) -> mmap.mmap:
        if shard not in self._maps:
            with self.shards[shard].open("rb") as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[shard]


def find_shards(root: Path) -> list[Path]:
    """The archive itself or all archives of a folder in sorted order.

    Raises:
        MissingInputError: none.
    """
    if root.is_file():
        return [root]
    shards = [p for p in visible(root, "*") if p.suffix in ARCHIVES]
    if not shards:
        raise MissingInputError(f"no .tar or .zip file in {root}; data.root must name shards")
    return shards


def read_shard(path: Path) -> Iterator[tuple[Member, str]]:
    """Images of a shard with their labels as words, in the order they are stored.

    Raises:
        InputError: a damaged archive, or an image without a label.
    """
    try:
        stored = _zip_members(path) if path.suffix == ".zip" else _tar_members(path)
        members = [member for member in stored if not is_hidden(member.name)]
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read as an archive ({error}); a compressed .tar must be made a "
            "plain one first: images are compressed already"
        ) from error
    labels: dict[str, str] = {}
    with path.open("rb") as file:
        if not members:
            return
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        for member in members:
            stem, ending = _split(member.name)
            if ending in (".cls", ".json"):
                label = _label(read_member(data, member), ending, f"{member.name} in {path}")
                if labels.setdefault(stem, label) != label:
                    raise InputError(f"{path}: two labels for {stem}, {labels[stem]} and {label}")
    for member in members:
        stem, _ = _split(member.name)
        if is_image_name(member.name):
            folder = PurePosixPath(member.name).parent.name
            label = labels.get(stem, folder)
            if not label:
                raise InputError(
                    f"{path}: {member.name} has no label; expected {stem}.cls, {stem}.json or a "
                    "folder for each identity"
                )
            yield member, label


def read_member(data: mmap.mmap, member: Member) -> bytes:
    """The bytes of a member.

    Raises:
        InputError: they are not all there, or damaged.
    """
    body = data[member.offset : member.offset + member.size]
    if len(body) < member.size:
        raise InputError("the archive ends inside it; it is truncated")
    if not member.is_deflated:
        return body
    try:
        # Bounded by the stated size: a bomb has none.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, member.full_size)
    except zlib.error as error:
        raise InputError(f"damaged ({error})") from error


def _tar_members(path: Path) -> Iterator[Member]:
    with tarfile.open(path, "r:") as archive, path.open("rb") as file:
        places: dict[str, Member] = {}  # of files, which hard links refer to
        for info in archive:
            is_link = info.islnk() or info.issym()
            if info.isreg():
                places[info.name] = Member(info.name, info.offset_data, info.size, info.size, False)
                yield places[info.name]
            elif info.islnk() and info.linkname in places:
                yield places[info.linkname]._replace(name=info.name)
            elif is_link and is_image_name(info.name) and not is_hidden(info.name):
                raise InputError(
                    f"{path}: {info.name} is a link to {info.linkname}, not a file; pack the files "
                    "that links mean: tar --dereference --hard-dereference"
                )
        # A damaged header looks to tarfile like the end, which is a block of zeros.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"no file header at byte {archive.offset}")


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for info in archive.infolist():
            if info.is_dir():
                continue
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise zipfile.BadZipFile(f"{info.filename}: unknown compression")
            file.seek(info.header_offset)
            fixed = file.read(_LOCAL_HEADER.size)
            if len(fixed) < _LOCAL_HEADER.size or not fixed.startswith(b"PK\3\4"):
                raise zipfile.BadZipFile(f"{info.filename}: no header where it should be")
            # The extra field here may differ from the one in the directory.
            start = info.header_offset + _LOCAL_HEADER.size + sum(_LOCAL_HEADER.unpack(fixed)[1:])
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            yield Member(info.filename, start, info.compress_size, info.file_size, deflated)


def _split(name: str) -> tuple[str, str]:
    # webdataset: the name ends at the first dot of the file's own name.
    folder, _, file = name.rpartition("/")
    stem, dot, ending = file.partition(".")
    return f"{folder}/{stem}" if folder else stem, (dot + ending).lower()


def _label(content: bytes, ending: str, what: str) -> str:
    text = content.decode(errors="replace").strip()
    if ending == ".json":
        try:
            entry = json.loads(text)
            text = str(entry.get("label", entry.get("identity", "")))
        except (ValueError, AttributeError) as error:
            raise InputError(f"{what}: not a JSON object ({error})") from error
    if not text:
        raise InputError(f"{what}: no label in it; expected `label` or `identity`")
    return text
