"""Which format lies somewhere, and the dataset that reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import Unpack

from marginface.data.dataset import FaceDataset, ReadingOptions
from marginface.data.formats.folder import FolderDataset
from marginface.data.formats.list import LIST_NAME, LIST_SUFFIXES, ListDataset
from marginface.data.formats.lmdb import LMDBDataset
from marginface.data.formats.parquet import ParquetDataset
from marginface.data.formats.recordio.reader import RecordIODataset
from marginface.data.formats.shards import ARCHIVES, ShardDataset
from marginface.utils.errors import InputError, MissingInputError, unknown_name

FORMATS: dict[str, Callable[..., FaceDataset]] = {
    "recordio": RecordIODataset,
    "folder": FolderDataset,
    "list": ListDataset,
    "lmdb": LMDBDataset,
    "shards": ShardDataset,
    "parquet": ParquetDataset,
}


def open_faces(
    root: str | Path, format: str | None = None, **options: Unpack[ReadingOptions]
) -> FaceDataset:
    """The dataset at `root`, of the given format or of the one that lies there.

    Raises:
        MissingInputError: nothing there.
        InputError: an unknown format, or data the format's reader refuses.
    """
    name = find_format(Path(root)) if format is None else format
    if name not in FORMATS:
        raise InputError(unknown_name("format", name, FORMATS))
    return FORMATS[name](root, **options)


def find_format(root: Path) -> str:
    """Name of the format that lies at `root`.

    Raises:
        MissingInputError: nothing there.
        InputError: a file of no known kind.
    """
    if not root.exists():
        raise MissingInputError(f"no file or folder {root}")
    by_suffix = {".rec": "recordio", ".mdb": "lmdb", ".parquet": "parquet"}
    by_suffix |= dict.fromkeys(LIST_SUFFIXES, "list") | dict.fromkeys(ARCHIVES, "shards")
    if root.is_file():
        if root.suffix not in by_suffix:
            raise InputError(
                f"{root}: no known kind of data; known endings: {', '.join(by_suffix)}"
            )
        return by_suffix[root.suffix]
    try:
        files = [p for p in root.iterdir() if p.suffix in by_suffix and p.is_file()]
    except OSError as error:
        raise InputError(f"{root}: the folder cannot be read ({error.strerror})") from error
    found = {by_suffix[p.suffix] for p in files}
    # A record file may have a list beside it, and so may the images of a list.
    for name in ("recordio", "lmdb", "parquet", "shards"):
        if name in found:
            return name
    if (root / LIST_NAME).is_file():
        return "list"
    if any(root.glob("*/*.parquet")):
        return "parquet"
    return "folder"
