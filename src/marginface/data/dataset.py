"""What every face dataset is: encoded images by index, a label each, and whole batches at once."""

import hashlib
from typing import Any, Literal, TypedDict

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
MOST_CLASSES = 1 << 31


class ReadingOptions(TypedDict, total=False):
    """What every dataset can be told about its images and labels; see FaceDataset."""

    image_size: int
    resize: bool
    grayscale: Grayscale
    alpha: Alpha
    exif: Exif
    faulty: Literal["stop", "skip"]
    label_gaps: Literal["refuse", "keep", "close"]
    cache: bool


class FaceDataset(Dataset[tuple[Tensor, int, int]]):
    """Aligned faces with identity labels.

    Subclasses call `super().__init__` with their labels and define `image_bytes`; whatever they
    open must survive fork and spawn.

    Args:
        labels: (N,) identity of each image, in [0, num_classes).
        num_classes: C; found from the labels when not given.
        where: the data in messages.
        identities: C names, in the order of the labels; the numbers when not given.
        image_size, resize, grayscale, alpha, exif: see `ImageRules`.
        faulty: an image that cannot be read stops the run with its name, or is left out of its
            batch and counted (`skipped`).
        label_gaps: identities without images are refused, kept as classes nobody shows, or
            closed by renumbering.
        cache: keep decoded images in memory that all reading processes share.

    Raises:
        InputError: no image, a label outside [0, C), or a gap.
    """

    def __init__(
        self,
        labels: Labels,
        num_classes: int | None = None,
        *,
        where: str = "the dataset",
        identities: list[str] | None = None,
        image_size: int = 112,
        resize: bool = False,
        grayscale: Grayscale = "expand",
        alpha: Alpha = "refuse",
        exif: Exif = "apply",
        faulty: Literal["stop", "skip"] = "stop",
        label_gaps: Literal["refuse", "keep", "close"] = "refuse",
        cache: bool = False,
    ) -> None:
        self.where = where
        self.image_size = image_size
        self.rules = ImageRules(image_size, resize, grayscale, alpha, exif)
        self.faulty = faulty
        check_labels(labels, num_classes, where)
        self.num_classes = int(labels.max()) + 1 if num_classes is None else num_classes
        self.labels, self.identities = labels, identities
        if label_gaps != "keep":
            self._close_gaps(refuse=label_gaps == "refuse")
        self._image_cache = (
            SharedImageCache(len(labels), image_size if cache else None)
            if cache or faulty == "skip"
            else None
        )

    def image_bytes(self, index: int) -> bytes:
        """The encoded image `index`, byte for byte as it is stored."""
        raise NotImplementedError(f"{type(self).__name__} must define image_bytes(index)")

    def describe(self, index: int) -> str:
        """Where image `index` comes from, for messages."""
        return f"image {index} of {self.where}"

    def stem(self, index: int) -> str:
        """A name for image `index` as a file, without its ending; unique within its identity."""
        return f"{index:08d}"

    def identity(self, label: int) -> str:
        """Name of an identity."""
        return f"{label:07d}" if self.identities is None else self.identities[label]

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
    def skipped(self) -> int:
        """Faulty images met so far, by all processes that read this dataset here."""
        return 0 if self._image_cache is None else self._image_cache.faulty_count

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        """Image uint8 (3, S, S) RGB, label, index; a faulty image is an error whatever is set."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)} ({self.where})")
        image = torch.from_numpy(self.pixels(index)).permute(2, 0, 1)
        return image, int(self.labels[index]), index

    def __getitems__(self, indices: list[int]) -> Batch:
        """A whole batch, decoded straight into one uint8 tensor; index -1 gives a black image.

        Raises:
            InputError: a faulty image, or with faulty="skip" nothing but faulty ones.
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
        if indices and not taken:
            raise InputError(
                f"all {len(indices)} images of a batch are faulty, the first is "
                f"{self.describe(indices[0])}; see `marginface inspect-data`"
            )
        chosen = np.asarray(taken, np.int64)
        labels = np.where(chosen >= 0, self.labels[chosen], NO_LABEL)
        return (
            images[: len(taken)].permute(0, 3, 1, 2),
            torch.from_numpy(labels),
            torch.from_numpy(chosen),
        )

    def content_hash(self) -> str:
        """A hash of all images as they are stored; reads all of them."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            try:
                encoded = self.image_bytes(index)
            except InputError as error:
                raise InputError(f"{self.describe(index)}: {error}") from error
            digest.update(len(encoded).to_bytes(8, "little"))
            digest.update(encoded)
        return digest.hexdigest()

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data of a run: counts and a hash of the labels in order."""
        return {
            "kind": type(self).__name__,
            "images": len(self),
            "identities": self.num_classes,
            "labels_sha256": hashlib.sha256(self.labels.tobytes()).hexdigest()[:16],
        }

    def _close_gaps(self, refuse: bool) -> None:
        # A table of counts may be far larger than the labels when they are sparse.
        is_dense = self.num_classes <= 4 * len(self.labels)
        filled = np.flatnonzero(np.bincount(self.labels)) if is_dense else np.unique(self.labels)
        missing = self.num_classes - len(filled)
        if not missing:
            return
        if refuse:
            off = np.flatnonzero(filled != np.arange(len(filled)))
            first = int(off[0]) if len(off) else len(filled)
            raise InputError(
                f"{self.where}: no image has label {first} ({missing} of {self.num_classes} "
                "identities are without images); set data.dataset.label_gaps=close to renumber "
                "the others or =keep to train with empty classes"
            )
        self.labels = np.searchsorted(filled, self.labels)
        self.num_classes = len(filled)
        if self.identities is not None:
            self.identities = [self.identities[label] for label in filled]


class Subset(FaceDataset):
    """Some images of another dataset, identities renumbered from 0 without gaps."""

    def __init__(self, parent: FaceDataset, indices: Labels) -> None:
        self.parent = parent
        self.indices = indices
        kept, labels = np.unique(parent.labels[indices], return_inverse=True)
        super().__init__(
            labels.astype(np.int64),
            len(kept),
            where=f"part of {parent.where}",
            identities=[parent.identity(int(label)) for label in kept],
            image_size=parent.image_size,
        )

    def image_bytes(self, index: int) -> bytes:
        return self.parent.image_bytes(int(self.indices[index]))

    def fill(self, index: int, out: Pixels) -> None:
        self.parent.fill(int(self.indices[index]), out)

    def read(self, index: int, out: Pixels) -> bool:
        return self.parent.read(int(self.indices[index]), out)

    @property
    def skipped(self) -> int:
        return self.parent.skipped

    def describe(self, index: int) -> str:
        return self.parent.describe(int(self.indices[index]))

    def stem(self, index: int) -> str:
        return self.parent.stem(int(self.indices[index]))

    def fingerprint(self) -> dict[str, Any]:
        taken = hashlib.sha256(self.indices.tobytes()).hexdigest()[:16]
        return super().fingerprint() | {"of": self.parent.fingerprint(), "indices_sha256": taken}


def check_labels(labels: Labels, num_classes: int | None, where: str) -> None:
    """InputError without any image, or for a label outside [0, num_classes)."""
    if not len(labels):
        raise InputError(f"{where} holds no images")
    lowest, highest = int(labels.min()), int(labels.max())
    end = highest + 1 if num_classes is None else num_classes
    if end > MOST_CLASSES:
        raise InputError(
            f"{where}: {end} identities, more than {MOST_CLASSES}; number them from 0 without gaps"
        )
    if lowest < 0 or highest >= end:
        wrong = highest if highest >= end else lowest
        index = int((labels == wrong).argmax())
        raise InputError(
            f"{where}: label {wrong} of image {index} is outside [0, {end}); "
            "fix the labels or the stated number of identities"
        )
