"""Base class of everything that gives images: encoded images by index, whole batches at once."""

import hashlib
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from marginface.data.images import Alpha, Exif, Grayscale, ImageRules, Pixels
from marginface.data.shared_memory import SharedImageCache, new_batch
from marginface.utils.errors import InputError

Batch = tuple[Tensor, Tensor, Tensor]  # images uint8 (B, 3, S, S), labels int64 (B,), indices (B,)
Labels = NDArray[np.int64]
NO_LABEL = -1


class ImageDataset(Dataset[tuple[Tensor, int, int]]):
    """Images without labels: in their place stands -1.

    Subclasses call `super().__init__` and define `image_bytes`; whatever they open must survive
    fork and spawn.

    Args:
        count: N, the number of images.
        where: the data in messages.
        image_size: S, side of the images in pixels.
        resize: stretch images of another size instead of refusing them.
        grayscale: what happens to images with one channel, see `ImageRules`.
        alpha: what happens to images with transparency.
        exif: what happens to the orientation that EXIF data states.
        faulty: an image that cannot be read stops the run with its name, or is left out of its
            batch and counted (`skipped`).
        cache: keep decoded images in memory that all reading processes share.

    Raises:
        InputError: no image.
    """

    needs_an_image = True  # whether a batch of faulty images only is an error; else it is empty

    def __init__(
        self,
        count: int,
        *,
        where: str = "the dataset",
        image_size: int = 112,
        resize: bool = False,
        grayscale: Grayscale = "expand",
        alpha: Alpha = "refuse",
        exif: Exif = "apply",
        faulty: Literal["stop", "skip"] = "stop",
        cache: bool = False,
    ) -> None:
        if not count:
            raise InputError(f"{where} holds no images")
        self.where = where
        self.image_size = image_size
        self.rules = ImageRules(image_size, resize, grayscale, alpha, exif)
        self.faulty = faulty
        self._count = count
        self._image_cache = None
        if cache or faulty == "skip":
            self._image_cache = SharedImageCache(count, image_size if cache else None)

    def image_bytes(self, index: int) -> bytes:
        """The encoded image `index`, byte for byte as it is stored."""
        raise NotImplementedError(f"{type(self).__name__} must define image_bytes(index)")

    def describe(self, index: int) -> str:
        """Where image `index` comes from, for messages."""
        return f"image {index} of {self.where}"

    def labels_of(self, indices: Labels) -> Labels:
        """(n,) labels of images, NO_LABEL for index -1."""
        return np.full(len(indices), NO_LABEL, np.int64)

    def pixels(self, index: int) -> Pixels:
        """(S, S, 3) RGB of image `index`."""
        out = np.empty((self.image_size, self.image_size, 3), np.uint8)
        self.fill(index, out)
        return out

    def fill(self, index: int, out: Pixels) -> None:
        """Decode image `index` into `out`."""
        try:
            self.rules.decode_into(self.image_bytes(index), out)
        except InputError as error:
            raise InputError(f"{self.describe(index)}: {error}") from error

    def read(self, index: int, out: Pixels) -> bool:
        """`fill` through the cache; False when the image is faulty and to be skipped."""
        cache = self._image_cache
        if cache is None:
            self.fill(index, out)
            return True
        if not cache.get(index, out):
            if cache.is_faulty(index):
                return False
            try:
                self.fill(index, out)
            except InputError as error:
                if self.faulty == "stop":
                    raise
                cache.mark_faulty(index, str(error))
                return False
            cache.put(index, out)
        return True

    @property
    def may_skip(self) -> bool:
        """Whether a batch may have fewer images than were asked for."""
        return self.faulty == "skip"

    @property
    def skipped(self) -> int:
        """Faulty images met so far, by all processes that read this dataset here."""
        return 0 if self._image_cache is None else self._image_cache.faulty_count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        """Image uint8 (3, S, S) RGB, label, index; a faulty image is an error whatever is set."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)} ({self.where})")
        image = torch.from_numpy(self.pixels(index)).permute(2, 0, 1)
        return image, int(self.labels_of(np.array([index]))[0]), index

    def __getitems__(self, indices: list[int]) -> Batch:
        """A whole batch, decoded straight into one uint8 tensor; index -1 gives a black image.

        Raises:
            InputError: a faulty image, or with faulty="skip" nothing but faulty ones where a batch
                needs an image.
        """
        images = new_batch(len(indices), self.image_size)
        rows = images.numpy()
        taken: list[int] = []
        for index in indices:
            if index < 0:
                rows[len(taken)] = 0
            elif not self.read(index, rows[len(taken)]):
                continue
            taken.append(index)
        if indices and not taken and self.needs_an_image:
            raise InputError(
                f"all {len(indices)} images of a batch are faulty, the first is "
                f"{self.describe(indices[0])}; see `marginface inspect-data`"
            )
        chosen = np.asarray(taken, np.int64)
        return (
            images[: len(taken)].permute(0, 3, 1, 2),
            torch.from_numpy(self.labels_of(chosen)),
            torch.from_numpy(chosen),
        )

    def content_hash(self) -> str:
        """A hash of all images as they are stored; reads all of them."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            try:
                encoded = self.image_bytes(index)
            except InputError as error:
                if self.faulty == "stop":
                    raise InputError(f"{self.describe(index)}: {error}") from error
                encoded = b""
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
        return digest.hexdigest()

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data of a run."""
        return {"kind": type(self).__name__, "images": len(self)}
