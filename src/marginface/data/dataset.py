"""What every face dataset is: pixels by index, one label per image, and whole batches at once."""

import hashlib
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from marginface.data.images import Pixels, check_size
from marginface.errors import InputError

Batch = tuple[Tensor, Tensor, Tensor]  # images uint8 (B, 3, S, S), labels int64 (B,), indices (B,)
NO_LABEL = -1


class FaceDataset(Dataset[tuple[Tensor, int, int]]):
    """Aligned faces with identity labels.

    Subclasses set `labels` and define `pixels`; whatever they open must survive fork and spawn.

    Args:
        labels: (N,) identity of each image, in [0, num_classes).
        num_classes: C; found from the labels when not given.
        image_size: S, side of the square images in pixels.
        resize: stretch images of another size to S x S instead of refusing them.

    Raises:
        InputError: no image, or a label outside [0, C).
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        num_classes: int | None = None,
        *,
        image_size: int = 112,
        resize: bool = False,
        where: str = "the dataset",
    ) -> None:
        self.labels = labels
        self.image_size = image_size
        self.resize = resize
        self.where = where
        if not len(labels):
            raise InputError(f"{where} holds no images")
        lowest, highest = int(labels.min()), int(labels.max())
        self.num_classes = highest + 1 if num_classes is None else num_classes
        if lowest < 0 or highest >= self.num_classes:
            wrong = highest if highest >= self.num_classes else lowest
            index = int((labels == wrong).argmax())
            raise InputError(
                f"{where}: label {wrong} of image {index} is outside [0, {self.num_classes}); "
                "fix the labels or the stated number of identities"
            )

    def pixels(self, index: int) -> Pixels:
        """(H, W, 3) RGB of image `index`, as it is stored."""
        raise NotImplementedError(f"{type(self).__name__} must define pixels(index)")

    def describe(self, index: int) -> str:
        """Where image `index` comes from, for messages."""
        return f"image {index} of {self.where}"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        """Image uint8 (3, S, S) RGB, label, index."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)} ({self.where})")
        image = torch.from_numpy(self._sized_pixels(index).copy()).permute(2, 0, 1)
        return image, int(self.labels[index]), index

    def __getitems__(self, indices: list[int]) -> Batch:
        """A whole batch, decoded straight into one uint8 tensor; index -1 gives a black image."""
        size = self.image_size
        images = np.zeros((len(indices), size, size, 3), np.uint8)
        for slot, index in enumerate(indices):
            if index >= 0:
                images[slot] = self._sized_pixels(index)
        taken = np.asarray(indices, np.int64)
        labels = np.where(taken >= 0, self.labels[taken], NO_LABEL)
        return (
            torch.from_numpy(images).permute(0, 3, 1, 2),
            torch.from_numpy(labels),
            torch.from_numpy(taken),
        )

    def _sized_pixels(self, index: int) -> Pixels:
        rgb = self.pixels(index)
        if self.resize and rgb.shape[:2] != (self.image_size, self.image_size):
            side = (self.image_size, self.image_size)
            resized: Pixels = cv2.resize(rgb, side, interpolation=cv2.INTER_AREA)
            return resized
        check_size(rgb, self.image_size, self.describe(index))
        return rgb

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data of a run: counts and a hash of the labels in order."""
        return {
            "kind": type(self).__name__,
            "images": len(self),
            "identities": self.num_classes,
            "labels_sha256": hashlib.sha256(self.labels.tobytes()).hexdigest()[:16],
        }


class Subset(FaceDataset):
    """Some images of another dataset, identities renumbered from 0 without gaps."""

    def __init__(self, parent: FaceDataset, indices: NDArray[np.int64]) -> None:
        self.parent = parent
        self.indices = indices
        _, labels = np.unique(parent.labels[indices], return_inverse=True)
        super().__init__(
            labels.astype(np.int64),
            image_size=parent.image_size,
            resize=parent.resize,
            where=f"part of {parent.where}",
        )

    def pixels(self, index: int) -> Pixels:
        return self.parent.pixels(int(self.indices[index]))

    def describe(self, index: int) -> str:
        return self.parent.describe(int(self.indices[index]))

    def fingerprint(self) -> dict[str, Any]:
        taken = hashlib.sha256(self.indices.tobytes()).hexdigest()[:16]
        return super().fingerprint() | {"of": self.parent.fingerprint(), "indices_sha256": taken}
