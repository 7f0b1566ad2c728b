"""Duplicate images, exact and near."""

import numpy as np
from numpy.typing import NDArray

from marginface.inspection.inspected_set import InspectedSet
from marginface.inspection.measurements import ImageMeasurements

MAX_BITS = 12  # of 256 that may differ between two images called nearly the same
SAME_PICTURE = 0.97  # correlation; re-encoded, scaled and brightened pictures have more
_MAX_BUCKET = 500

Pairs = NDArray[np.int64]  # (n, 2), first < second


def exact_duplicates(sha256: NDArray[np.uint8], there: NDArray[np.bool_]) -> list[list[int]]:
    """Groups of image numbers with equal hashes, in order; only of images that are `there`."""
    indices = np.flatnonzero(there)
    _, group, counts = np.unique(sha256[indices], axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    several = np.flatnonzero(counts[group] > 1)
    groups: dict[int, list[int]] = {}
    for place in several:
        groups.setdefault(int(group[place]), []).append(int(indices[place]))
    return list(groups.values())


def near_duplicates(
    phash: NDArray[np.uint8], there: NDArray[np.bool_], max_bits: int = MAX_BITS
) -> Pairs:
    """Pairs whose hashes differ in at most `max_bits` bits.

    Hashes that do so agree in at least one of max_bits + 1 bands of bits, so only images that share
    a band are compared. Of a band that more than 500 images share, each is compared with the 500
    next ones: photographs are never more alike than that.

    Args:
        phash: (N, 32) bytes.
        there: (N,) which to compare.
    """
    indices = np.flatnonzero(there)
    bits = np.unpackbits(phash[indices], axis=1)
    words = np.ascontiguousarray(phash[indices]).view(np.uint64)
    found = [np.empty((0, 2), np.int64)]
    for band in np.array_split(np.arange(bits.shape[1]), max_bits + 1):
        key = bits[:, band] @ (1 << np.arange(len(band), dtype=np.int64))
        order = np.argsort(key, kind="stable")
        key = key[order]
        left = np.arange(len(order) - 1)
        for step in range(1, _MAX_BUCKET + 1):
            left = left[left + step < len(order)]
            left = left[key[left] == key[left + step]]
            if not len(left):
                break
            one, other = order[left], order[left + step]
            close = np.bitwise_count(words[one] ^ words[other]).sum(1) <= max_bits
            found.append(np.sort(np.stack([one[close], other[close]], 1), axis=1))
    return indices[np.unique(np.concatenate(found), axis=0)]


def likeness(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Correlation of two pictures of one size, whatever their brightness and contrast."""
    first, second = (picture.astype(np.float64).ravel() for picture in (one, other))
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-9))


def between(phash: NDArray[np.uint8], other: NDArray[np.uint8], max_bits: int = MAX_BITS) -> Pairs:
    """Pairs (image of the first, image of the second) that differ in at most `max_bits` bits."""
    both = np.concatenate([phash, other])
    pairs = near_duplicates(both, np.asarray(both.any(1)), max_bits)
    across = (pairs[:, 0] < len(phash)) & (pairs[:, 1] >= len(phash))
    return pairs[across] - np.array([0, len(phash)])


def find_duplicates(inspected: InspectedSet, images: ImageMeasurements) -> None:
    """The same bytes, or nearly the same picture."""
    same = np.arange(len(inspected.faces))
    for group in exact_duplicates(images.sha256, np.asarray(images.sha256.any(1))):
        same[group] = group[0]
        _report_group(inspected, group, "duplicate", "the same bytes as")
    representative = images.readable & (same == np.arange(len(same)))
    for first, second in near_duplicates(images.phash, representative).tolist():
        # Among millions of faces some hashes are near by chance.
        if likeness(inspected.picture(first), inspected.picture(second)) < SAME_PICTURE:
            continue
        _report_group(inspected, [first, second], "near duplicate", "nearly the same picture as")


def _report_group(inspected: InspectedSet, group: list[int], kind: str, words: str) -> None:
    persons = {inspected.identity(index) for index in group}
    if len(persons) == 1:
        for index in group[1:]:
            inspected.fault(kind, inspected.name(index), f"{words} {inspected.name(group[0])}")
        return
    # Nobody knows which label is right, so every image is named.
    for index in group:
        other = next(o for o in group if inspected.identity(o) != inspected.identity(index))
        inspected.fault(
            kind,
            inspected.name(index),
            f"{words} {inspected.name(other)}, which is labeled as another person",
        )
