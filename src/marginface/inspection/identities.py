"""Labels checked with embeddings: mislabeled images, one person under two names."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from marginface.data.dataset import FaceDataset
from marginface.data.images import ImageRules
from marginface.inference.embedder import Embedder
from marginface.inspection.inspected_set import InspectedSet, OnProgress
from marginface.inspection.measurements import ImageMeasurements
from marginface.utils.errors import InputError

_BLOCK = 4096
_MOST_PAIRS = 1000
_MIN_IMAGES = 3  # of an identity, to have an opinion on one of them


class Suspect(NamedTuple):
    """An image that does not look like its identity.

    Attributes:
        image: its number.
        own: cosine to the center of its identity.
        other: highest cosine to another identity's center.
        nearest: that identity.
    """

    image: int
    own: float
    other: float
    nearest: int


class Likeness(NamedTuple):
    """Two identities that may be one person."""

    first: int
    second: int
    cosine: float


def embed_readable(
    faces: FaceDataset,
    indices: NDArray[np.int64],
    embedder: Embedder,
    on_progress: Callable[[str, int, int], None],
) -> Tensor:
    """(N, D) embeddings, NaN for images not among `indices`.

    Raises:
        InputError: there are none.
    """
    if not len(indices):
        raise InputError(f"{faces.where}: no image could be read, nothing to embed")
    rules = ImageRules(size=embedder.image_size, resize=True, alpha="drop")
    parts = []
    for start in range(0, len(indices), 128):
        part = indices[start : start + 128].tolist()
        batch = np.stack([rules.decode(faces.image_bytes(index)) for index in part])
        parts.append(embedder(torch.from_numpy(batch).permute(0, 3, 1, 2)).cpu())
        on_progress("embedding", start + len(part), len(indices))
    rows = normalize(torch.cat(parts))
    table = torch.full((len(faces), rows.shape[1]), torch.nan)
    table[torch.from_numpy(indices)] = rows
    return table


def identity_centers(embeddings: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(C, D) unit means over the half of each identity's images nearest to its first mean.

    Args:
        embeddings: (N, D) of unit length.
        labels: (N,).
        num_classes: C; identities without images get zeros.
    """
    first = _means(embeddings, labels, num_classes)
    cosine = (embeddings * first[labels]).sum(1)
    # Sorted by identity, then by cosine: the better half of each comes first.
    order = torch.argsort(cosine, descending=True, stable=True)
    order = order[torch.argsort(labels[order], stable=True)]
    counts = torch.bincount(labels, minlength=num_classes)
    place = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    kept = order[place < ((counts + 1) // 2)[labels[order]]]
    return _means(embeddings[kept], labels[kept], num_classes)


def label_suspects(embeddings: Tensor, labels: Tensor, num_classes: int) -> list[Suspect]:
    """Images nearer to another identity than to their own, or far from it; worst first.

    Far is more than 5 robust standard deviations (1.4826 MAD) below the median cosine to one's own.
    """
    centers = identity_centers(embeddings, labels, num_classes)
    counts = torch.bincount(labels, minlength=num_classes)
    own = (embeddings * centers[labels]).sum(1)
    other, nearest = _best_of_others(embeddings, labels, centers)
    judged = counts[labels] >= _MIN_IMAGES
    if not judged.any():
        return []
    median = own[judged].median()
    spread = 1.4826 * (own[judged] - median).abs().median()
    wrong = judged & ((other > own) | (own < median - 5 * spread))
    found = [
        Suspect(i, float(own[i]), float(other[i]), int(nearest[i]))
        for i in wrong.nonzero()[:, 0].tolist()
    ]
    return sorted(found, key=lambda suspect: suspect.own - suspect.other)


def alike_identities(
    centers: Tensor, others: Tensor | None = None, threshold: float = 0.7
) -> list[Likeness]:
    """Pairs of identities (or of an identity and one of `others`) whose centers are alike.

    Args:
        centers: (C, D) of unit length; zeros for identities without images.
        others: (K, D) to compare with instead.
        threshold: cosine from which two are alike.
    """
    second = centers if others is None else others
    found = []
    for start in range(0, len(centers), _BLOCK):
        cosine = centers[start : start + _BLOCK] @ second.T
        if others is None:
            cosine = cosine.triu(start + 1)
        # A poor network finds everybody alike: only the most alike are worth a look.
        best, places = cosine.flatten().topk(min(_MOST_PAIRS, cosine.numel()))
        for value, place in zip(best.tolist(), places.tolist(), strict=True):
            if value >= threshold:
                row, column = divmod(place, cosine.shape[1])
                found.append(Likeness(start + row, column, value))
    return sorted(found, key=lambda pair: -pair.cosine)[:_MOST_PAIRS]


def _best_of_others(embeddings: Tensor, labels: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """Highest cosine to another identity's center, and which."""
    best, which = [], []
    for start in range(0, len(labels), _BLOCK):
        part = slice(start, start + _BLOCK)
        cosine = embeddings[part] @ centers.T
        cosine.scatter_(1, labels[part, None], -2.0)
        value, column = cosine.max(1)
        best.append(value)
        which.append(column)
    return torch.cat(best), torch.cat(which)


def _means(embeddings: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    total = torch.zeros(num_classes, embeddings.shape[1]).index_add_(0, labels, embeddings)
    return torch.nn.functional.normalize(total)


def compare_identities(
    inspected: InspectedSet,
    images: ImageMeasurements,
    embedder: Embedder,
    on_progress: OnProgress,
) -> Tensor:
    """Images that look like another person, identities that look like one person.

    Returns:
        (C, D) unit centers of the identities.
    """
    readable = np.flatnonzero(images.readable)
    embeddings = embed_readable(inspected.faces, readable, embedder, on_progress)
    known = torch.isfinite(embeddings).all(1)
    numbers, labels = known.nonzero()[:, 0], torch.from_numpy(inspected.faces.labels)[known]
    for found in label_suspects(embeddings[known], labels, inspected.faces.num_classes):
        image = int(numbers[found.image])
        inspected.suspicion(
            "label",
            inspected.name(image),
            f"looks more like {inspected.faces.identity(found.nearest)} (cosine {found.other:.2f}) "
            f"than like {inspected.identity(image)} ({found.own:.2f})"
            if found.other > found.own
            else f"looks little like {inspected.identity(image)} (cosine {found.own:.2f})",
        )
    centers = identity_centers(embeddings[known], labels, inspected.faces.num_classes)
    for pair in alike_identities(centers):
        inspected.suspicion(
            "identity",
            inspected.faces.identity(pair.first),
            f"may be the same person as {inspected.faces.identity(pair.second)} "
            f"(cosine of the centers {pair.cosine:.2f})",
        )
    return centers
