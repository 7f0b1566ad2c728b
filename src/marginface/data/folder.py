"""A folder per identity: root/identity/image.jpg."""

import hashlib
import os
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from marginface.console import warn
from marginface.data.dataset import FaceDataset, ReadingOptions
from marginface.errors import InputError, MissingInputError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


class FolderDataset(FaceDataset):
    """Identities are the sub-folders of `root` in sorted order, images the files in them.

    Hidden files are not looked at. Files with other endings are no images; they are listed in
    `ignored` and a warning says how many there are. Folders without images are no identities;
    they are listed in `empty`.

    Raises:
        MissingInputError: no folder `root`.
        InputError: no identity with an image below it, or a folder that cannot be read.
    """

    def __init__(self, root: str | Path, **options: Unpack[ReadingOptions]) -> None:
        root = Path(root)
        if not root.is_dir():
            raise MissingInputError(f"no folder {root}; data.root must name a folder of identities")
        self.root = root
        self.files: list[str] = []  # relative to root
        self.ignored: list[str] = []
        self.empty: list[str] = []
        identities: list[str] = []
        labels: list[int] = []
        for folder in _entries(root):
            if not folder.is_dir():
                if folder.is_symlink() and not os.path.exists(folder.path):
                    raise InputError(f"{folder.path}: a link to nothing; remove or mend it")
                self.ignored.append(folder.name)
                continue
            entries = _entries(folder.path)
            names = [e.name for e in entries if is_image_name(e.name) and not e.is_dir()]
            taken = set(names)
            self.ignored += [f"{folder.name}/{e.name}" for e in entries if e.name not in taken]
            if names:
                labels += [len(identities)] * len(names)
                self.files += [f"{folder.name}/{name}" for name in names]
                identities.append(folder.name)
            else:
                self.empty.append(folder.name)
        if not self.files:
            raise InputError(
                f"{root} holds no images: expected {root}/<identity>/<image>"
                f"{{{','.join(sorted(SUFFIXES))}}}"
            )
        if self.ignored:
            warn(
                f"{root}: {len(self.ignored)} entries are no images of an identity and are not "
                f"used, the first is {self.ignored[0]}"
            )
        super().__init__(
            np.asarray(labels, np.int64), where=str(root), identities=identities, **options
        )

    def image_bytes(self, index: int) -> bytes:
        return read_image_file(self.root, self.files[index])

    def describe(self, index: int) -> str:
        return str(self.root / self.files[index])

    def stem(self, index: int) -> str:
        return Path(self.files[index]).stem

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | {"files_sha256": hash_of_names(self.files)}


def is_image_name(name: str) -> bool:
    """Whether a file's ending is that of an image we read."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def read_image_file(root: Path, name: str) -> bytes:
    """The bytes of a file, relative to `root` or absolute; InputError when it cannot be read."""
    try:
        # A quarter of the time of Path.read_bytes, which is as much as a read takes.
        path = name if name.startswith("/") else f"{root}/{name}"
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})") from error
    except ValueError as error:  # a zero byte in the name
        raise InputError(f"{name!r} is no name of a file") from error


def hash_of_names(names: list[str]) -> str:
    """A short hash of file names in order."""
    return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()[:16]


def _entries(folder: str | Path) -> list["os.DirEntry[str]"]:
    """What a folder holds, sorted, without hidden entries."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if e.name[0] != "."), key=lambda e: e.name)
    except OSError as error:
        raise InputError(
            f"{folder}: the folder cannot be read ({error.strerror}); mend its permissions or "
            "remove it"
        ) from error
