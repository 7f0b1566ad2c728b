"""Names to data formats: `register_format`, `open_faces`, `find_format`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch, translate
from pathlib import Path
from typing import Protocol, TypeVar, Unpack

from marginface.data.dataset import FaceDataset, ReadingOptions
from marginface.data.image_files import is_hidden, visible
from marginface.utils.errors import InputError, MissingInputError, unknown_name


class Writer(Protocol):
    """Writes images one after the other into a folder, and can continue where another one stopped.

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


@dataclass(frozen=True)
class Format:
    """A way in which labeled faces are stored.

    Args:
        name: in configurations and of `marginface pack --format`.
        dataset: reads it, called with the root and the reading options.
        suffixes: of a file that is such a set by itself.
        contains: shell patterns; a folder in which one of them matches a file is such a set. The
            suffixes when not given.
        rank: of several formats that a folder could be, the one of lowest rank is taken.
    """

    name: str
    dataset: Callable[..., FaceDataset]
    suffixes: tuple[str, ...]
    contains: tuple[str, ...]
    rank: int


FALLBACK = "folder"  # a folder that nothing else is found in
_FORMATS: dict[str, Format] = {}
_WRITERS: dict[str, type[Writer]] = {}
_Dataset = TypeVar("_Dataset", bound=type[FaceDataset])
_Writer = TypeVar("_Writer", bound=type[Writer])


def register_format(
    name: str,
    *,
    suffixes: tuple[str, ...] = (),
    contains: tuple[str, ...] | None = None,
    rank: int = 50,
) -> Callable[[_Dataset], _Dataset]:
    """Class decorator that makes a dataset known as a format; see `Format`."""

    def register(dataset: _Dataset) -> _Dataset:
        if name in _FORMATS:
            taken = _FORMATS[name].dataset.__module__
            raise ValueError(f"format {name!r} is already registered by {taken}")
        patterns = tuple(f"*{s}" for s in suffixes) if contains is None else contains
        _FORMATS[name] = Format(name, dataset, suffixes, patterns, rank)
        return dataset

    return register


def register_writer(name: str) -> Callable[[_Writer], _Writer]:
    """Class decorator: `marginface pack --format NAME` writes with this class."""

    def register(writer: _Writer) -> _Writer:
        if name in _WRITERS:
            raise ValueError(f"writer {name!r} is already there: {_WRITERS[name].__module__}")
        _WRITERS[name] = writer
        return writer

    return register


def list_formats() -> list[str]:
    """Registered names, sorted."""
    return sorted(_FORMATS)


def list_writers() -> list[str]:
    """Formats that can be written, sorted."""
    return sorted(_WRITERS)


def writer_class(name: str) -> type[Writer]:
    """What writes the format `name`; InputError names the nearest known one."""
    if name not in _WRITERS:
        raise InputError(unknown_name("format to write", name, _WRITERS))
    return _WRITERS[name]


def open_faces(
    root: str | Path, format: str | None = None, **options: Unpack[ReadingOptions]
) -> FaceDataset:
    """The dataset at `root`, of the given format or of the one that is found there.

    Raises:
        MissingInputError: nothing there.
        InputError: an unknown format, or data the format's reader refuses.
    """
    name = find_format(Path(root)) if format is None else format
    if name not in _FORMATS:
        raise InputError(unknown_name("format", name, _FORMATS))
    return _FORMATS[name].dataset(root, **options)


def find_format(root: Path) -> str:
    """Name of the format in which the faces at `root` are stored.

    Raises:
        MissingInputError: nothing there.
        InputError: a file of no known kind.
    """
    if not root.exists():
        raise MissingInputError(f"no file or folder {root}")
    by_rank = sorted(_FORMATS.values(), key=lambda f: (f.rank, f.name))
    if root.is_file():
        for known in by_rank:
            if root.suffix in known.suffixes:
                return known.name
        endings = ", ".join(suffix for f in by_rank for suffix in f.suffixes)
        raise InputError(f"{root}: not a known kind of data; known endings: {endings}")
    files = _names_of_files(root, [p for f in by_rank for p in f.contains if "/" not in p])
    # A record file may have a list next to it, and so may the images of a list.
    for known in by_rank:
        top = [pattern for pattern in known.contains if "/" not in pattern]
        if any(fnmatch(name, pattern) for pattern in top for name in files):
            return known.name
    for known in by_rank:
        if any(visible(root, p) for p in known.contains if "/" in p):
            return known.name
    return FALLBACK


def _names_of_files(root: Path, patterns: list[str]) -> list[str]:
    """Names of files that match; a folder of identities may hold a hundred thousand others."""
    matches = re.compile("|".join(map(translate, patterns))).match
    try:
        names = [p.name for p in root.iterdir() if matches(p.name) and p.is_file()]
        return [name for name in names if not is_hidden(name)]
    except OSError as error:
        raise InputError(f"{root}: the folder cannot be read ({error.strerror})") from error
