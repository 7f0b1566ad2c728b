"""Base class of all labeled face datasets, and parts of one."""

from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from marginface.data.image_dataset import NO_LABEL, ImageDataset, Labels
from marginface.data.images import Alpha, Exif, Grayscale, Pixels
from marginface.utils.console import rank_zero_print
from marginface.utils.errors import InputError
from marginface.utils.hashes import short_hash

MOST_CLASSES = 1 << 31
LabelGaps = Literal["refuse", "keep", "close"]


class ImageOptions(TypedDict, total=False):
    """How a dataset reads its images; see `ImageDataset`."""

    image_size: int
    resize: bool
    grayscale: Grayscale
    alpha: Alpha
    exif: Exif
    faulty: Literal["stop", "skip"]
    cache: bool


class ReadingOptions(ImageOptions, total=False):
    """Options of every labeled dataset; see `FaceDataset`."""

    label_gaps: LabelGaps


class FaceDataset(ImageDataset):
    """Aligned faces with identity labels.

    Subclasses call `super().__init__` with their labels and define `image_bytes`.

    Args:
        labels: (N,) identity of each image, in [0, num_classes).
        num_classes: C; found from the labels when not given.
        where: the data in messages.
        identities: C names, in the order of the labels; the numbers when not given.
        label_gaps: identities without images are refused, kept as classes without images, or
            closed by renumbering. Numbers most of which have no image, as people's own have, are
            names and never refused, unless `num_classes` is given.
        options: how images are read, see `ImageDataset`.

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
        label_gaps: LabelGaps = "refuse",
        **options: Unpack[ImageOptions],
    ) -> None:
        # Before a cache for the images takes memory.
        if len(labels):
            check_labels(labels, num_classes, where)
            is_stated = num_classes is not None
            num_classes = int(labels.max()) + 1 if num_classes is None else num_classes
            if label_gaps != "keep":
                labels, num_classes, identities = close_gaps(
                    labels, num_classes, identities, where,
                    refuse=label_gaps == "refuse", names=not is_stated,
                )  # fmt: skip
        super().__init__(len(labels), where=where, **options)
        self.labels, self.identities = labels, identities
        self.num_classes = num_classes or 0

    def stem(self, index: int) -> str:
        """A name for image `index` as a file, without its ending; unique within its identity."""
        return f"{index:08d}"

    def identity(self, label: int) -> str:
        """Name of an identity."""
        return f"{label:07d}" if self.identities is None else self.identities[label]

    def labels_of(self, indices: Labels) -> Labels:
        return np.where(indices >= 0, self.labels[indices], NO_LABEL)

    def fingerprint(self) -> dict[str, Any]:
        """What identifies the data of a run: counts and a hash of the labels in order."""
        return super().fingerprint() | {
            "identities": self.num_classes,
            "labels_sha256": short_hash(self.labels.tobytes()),
        }


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
    def may_skip(self) -> bool:
        return self.parent.may_skip

    @property
    def skipped(self) -> int:
        return self.parent.skipped

    def describe(self, index: int) -> str:
        return self.parent.describe(int(self.indices[index]))

    def stem(self, index: int) -> str:
        return self.parent.stem(int(self.indices[index]))

    def fingerprint(self) -> dict[str, Any]:
        taken = short_hash(self.indices.tobytes())
        return super().fingerprint() | {"of": self.parent.fingerprint(), "indices_sha256": taken}


def close_gaps(
    labels: Labels,
    num_classes: int,
    identities: list[str] | None,
    where: str,
    *,
    refuse: bool,
    names: bool = False,
) -> tuple[Labels, int, list[str] | None]:
    """Labels, number and names of the identities that have images, numbered without gaps.

    Whoever has no name is called by the number that was given, so that it is not lost.

    Args:
        refuse: an identity without images is an InputError,
        names: but not if that are more than half of them: such numbers are names.
    """
    # A table of counts may be far larger than the labels when they are sparse.
    is_dense = num_classes <= 4 * len(labels)
    filled = np.flatnonzero(np.bincount(labels)) if is_dense else np.unique(labels)
    missing = num_classes - len(filled)
    if not missing:
        return labels, num_classes, identities
    if refuse and names and missing > len(filled):
        rank_zero_print(
            f"{where}: its {len(filled)} labels between {filled[0]} and {filled[-1]} are taken for "
            "names; data.dataset.label_gaps=keep makes a class of each number"
        )
    elif refuse:
        off = np.flatnonzero(filled != np.arange(len(filled)))
        first = int(off[0]) if len(off) else len(filled)
        raise InputError(
            f"{where}: no image has label {first} ({missing} of {num_classes} identities are "
            "without images); set data.dataset.label_gaps=close (in pack --label-gaps close) to "
            "renumber the others or =keep to train with empty classes"
        )
    called = [str(label) if identities is None else identities[label] for label in filled.tolist()]
    return np.searchsorted(filled, labels), len(filled), called


def check_labels(labels: Labels, num_classes: int | None, where: str) -> None:
    """InputError for a label outside [0, num_classes)."""
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
