"""A folder per identity: root/identity/image.jpg."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from marginface.data.dataset import FaceDataset, ReadingOptions
from marginface.data.formats._registry import register_format, register_writer
from marginface.data.identity_names import NAMES
from marginface.data.image_files import (
    hash_of_names,
    is_hidden,
    is_image_name,
    read_image_file,
)
from marginface.utils.console import rank_zero_warn
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.files import atomic_write, write_lines


@register_format("folder")
class FolderDataset(FaceDataset):
    """Identities are the sub-folders of `root` in sorted order, images the files in them.

    Hidden files are not looked at. Files with other endings are not images; they are listed in
    `ignored` and a warning says how many there are. Folders without images are not identities;
    they are listed in `empty`.

    Args:
        root: the folder.
        depth: levels from `root` down to the identities; 1: they are directly in it.
        options: see `FaceDataset`.

    Raises:
        MissingInputError: no folder `root`.
        InputError: no identity with an image below it, two of one name, or a folder that cannot be
            read.
    """

    def __init__(
        self, root: str | Path, *, depth: int = 1, **options: Unpack[ReadingOptions]
    ) -> None:
        root = Path(root)
        if not root.is_dir():
            raise MissingInputError(f"no folder {root}; data.root must name a folder of identities")
        if depth < 1:
            raise InputError(f"data.dataset.depth must be at least 1, got {depth}")
        self.root = root
        self.files: list[str] = []  # relative to root
        self.ignored: list[str] = []
        self.empty: list[str] = []
        identities: dict[str, str] = {}  # name and folder
        labels: list[int] = []
        for folder in self._folders("", depth):
            entries = _entries(root / folder)
            names = [e.name for e in entries if is_image_name(e.name) and not e.is_dir()]
            taken = set(names)
            self.ignored += [f"{folder}/{e.name}" for e in entries if e.name not in taken]
            if not names:
                self.empty.append(folder)
                continue
            person = folder.rpartition("/")[2]
            if person in identities:
                raise InputError(
                    f"{root}: {identities[person]} and {folder} have one name; rename one of them, "
                    "or join their folders as sources (data=joined)"
                )
            labels += [len(identities)] * len(names)
            self.files += [f"{folder}/{name}" for name in names]
            identities[person] = folder
        if not self.files:
            raise _no_images(root, depth)
        if self.ignored:
            rank_zero_warn(
                f"{root}: {len(self.ignored)} entries are not images of an identity and are not "
                f"used, the first is {self.ignored[0]}"
            )
        super().__init__(
            np.asarray(labels, np.int64), where=str(root), identities=list(identities), **options
        )

    def _folders(self, above: str, depth: int) -> Iterator[str]:
        """Folders so many levels below one, relative to root and sorted; files are ignored."""
        for entry in _entries(self.root / above):
            path = f"{above}/{entry.name}" if above else entry.name
            if entry.is_dir():
                yield from [path] if depth == 1 else self._folders(path, depth - 1)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                raise InputError(f"{entry.path}: a link to nothing; remove or fix it")
            else:
                self.ignored.append(path)

    def image_bytes(self, index: int) -> bytes:
        return read_image_file(self.root, self.files[index])

    def describe(self, index: int) -> str:
        return str(self.root / self.files[index])

    def stem(self, index: int) -> str:
        return Path(self.files[index]).stem

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | {"files_sha256": hash_of_names(self.files)}


def _no_images(root: Path, depth: int) -> InputError:
    """The error, with the depth at which there are images."""
    for folder, _, names in os.walk(root):
        place = Path(folder).relative_to(root)
        if not is_hidden(str(place)) and any(map(is_image_name, names)):
            found = len(place.parts)
            if found > 1:
                return InputError(
                    f"{root} holds no images {depth} folders down, but {found}, in {place}: set "
                    f"data.dataset.depth={found}"
                )
    return InputError(
        f"{root} holds no images: expected {root}/<identity>/<image>.jpg (or .png, .bmp, .webp, "
        ".tif, ...)"
    )


def _entries(folder: str | Path) -> list["os.DirEntry[str]"]:
    """What a folder holds, sorted, without hidden entries."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not is_hidden(e.name)), key=lambda e: e.name)
    except OSError as error:
        raise InputError(
            f"{folder}: the folder cannot be read ({error.strerror}); fix its permissions or "
            "remove it"
        ) from error


@register_writer("folder")
class FolderWriter:
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
        while (name := f"{folder}/{stem}{suffix}") in self._files:
            stem = f"{stem}-{index}"  # a.jpg next to a.png, both of them JPEGs
        return name

    def finish(self) -> None:
        if self.list_name is not None:
            text = "".join(f"{name}\t{label}\n" for name, label in self._files.items())
            with atomic_write(self._folder / self.list_name) as file:
                file.write(text.encode(errors="surrogateescape"))
            if self._source.identities is not None:
                write_lines(self._folder / NAMES, self._source.identities)

    def close(self) -> None:
        pass


def _check_folder_name(name: str) -> None:
    """InputError for an identity that is not a name of a visible folder."""
    if not name or name[0] in ".#" or any(c in name for c in "/\0\t\n\r"):
        raise InputError(
            f"identity {name!r} cannot be the name of a folder; rename it in the source, or pack "
            "into recordio or lmdb"
        )


_STARTS = {
    b"\x89PNG": ".png", b"BM": ".bmp", b"RIFF": ".webp", b"GIF8": ".gif", b"II*\0": ".tif",
    b"MM\0*": ".tif", b"\0\0\0\x0cjP": ".jp2", b"P4": ".pbm", b"P5": ".pgm", b"P6": ".ppm",
}  # fmt: skip


def _suffix(image: bytes) -> str:
    """The ending of a file with these bytes."""
    return next((suffix for start, suffix in _STARTS.items() if image.startswith(start)), ".jpg")
