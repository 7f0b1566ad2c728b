"""Images in files by name, of any size, aligned by five points or cut to a square."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from marginface.data.alignment.template import align
from marginface.data.image_dataset import ImageDataset
from marginface.data.image_files import read_image_file
from marginface.data.images import ImageRules, Pixels, resize_and_center_crop
from marginface.utils.errors import InputError, MissingInputError


class UnlabeledFaces(ImageDataset):
    """Images for evaluation: no labels, and a faulty one stops the run.

    Args:
        root: folder of the images.
        files: their names, relative to it or absolute.
        points: (N, 5, 2) in pixels, to align each by; without them the short side is scaled to
            fit and the center cut.
        image_size: S in pixels. Sizes without an alignment template are scaled from 112.

    Raises:
        InputError: no files.
        MissingInputError: no folder `root`.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        *,
        points: NDArray[np.float64] | None = None,
        image_size: int = 112,
    ) -> None:
        if not root.is_dir():
            raise MissingInputError(f"no folder {root} with the images")
        self.root, self.files, self.points = root, list(files), points
        self._any_size = ImageRules(size=None, alpha="drop")
        super().__init__(len(files), image_size=image_size, where=str(root))

    def image_bytes(self, index: int) -> bytes:
        return read_image_file(self.root, self.files[index])

    def fill(self, index: int, out: Pixels) -> None:
        try:
            rgb = self._any_size.decode(self.image_bytes(index))
            if self.points is None:
                out[:] = resize_and_center_crop(rgb, self.image_size)
            else:
                out[:] = _aligned(rgb, self.points[index], self.image_size)
        except InputError as error:
            raise InputError(f"{self.describe(index)}: {error}") from error

    def describe(self, index: int) -> str:
        return str(self.root / self.files[index])

    def content_hash(self) -> str:
        """A hash of names, sizes, times and points: reading half a million images takes long.

        Raises:
            MissingInputError: a file that is not there.
        """
        digest = hashlib.sha256()
        for name in self.files:
            try:
                status = (self.root / name).stat()
            except OSError as error:
                raise MissingInputError(f"{self.root / name}: no such image") from error
            facts = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(facts.encode(errors="surrogateescape"))
        if self.points is not None:
            digest.update(self.points.tobytes())
        return digest.hexdigest()


def _aligned(rgb: Pixels, points: NDArray[np.float64], size: int) -> Pixels:
    if size % 112 == 0 or size % 128 == 0:
        return align(rgb, points, size)
    scaled: Pixels = cv2.resize(align(rgb, points), (size, size), interpolation=cv2.INTER_AREA)
    return scaled
