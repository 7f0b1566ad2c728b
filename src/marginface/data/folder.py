"""A folder per identity: root/identity/image.jpg."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from marginface.data.dataset import FaceDataset
from marginface.data.images import Pixels, decode_rgb
from marginface.errors import InputError, MissingInputError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


class FolderDataset(FaceDataset):
    """Identities are the sub-folders of `root` in sorted order, images the files in them.

    Files with other endings and hidden ones are not images; folders without images are no
    identities.

    Raises:
        MissingInputError: no folder `root`.
        InputError: no identity with an image below it.
    """

    def __init__(self, root: str | Path, *, image_size: int = 112, resize: bool = False) -> None:
        root = Path(root)
        if not root.is_dir():
            raise MissingInputError(f"no folder {root}; data.root must name a folder of identities")
        self.root = root
        self.identities: list[str] = []
        self.files: list[str] = []  # relative to root
        labels: list[int] = []
        for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != "."):
            images = sorted(
                p.name
                for p in folder.iterdir()
                if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
            )
            if images:
                labels += [len(self.identities)] * len(images)
                self.files += [f"{folder.name}/{name}" for name in images]
                self.identities.append(folder.name)
        if not self.files:
            raise InputError(
                f"{root} holds no images: expected {root}/<identity>/<image>"
                f"{{{','.join(sorted(SUFFIXES))}}}"
            )
        super().__init__(
            np.asarray(labels, np.int64),
            len(self.identities),
            image_size=image_size,
            resize=resize,
            where=str(root),
        )

    def pixels(self, index: int) -> Pixels:
        path = self.root / self.files[index]
        try:
            encoded = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        return decode_rgb(encoded, str(path))

    def describe(self, index: int) -> str:
        return str(self.root / self.files[index])

    def fingerprint(self) -> dict[str, Any]:
        names = hashlib.sha256("\n".join(self.files).encode()).hexdigest()[:16]
        return super().fingerprint() | {"files_sha256": names}
