"""Identities of pair sets that do not name them, inferred from genuine pairs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from marginface.metrics.bootstrap import Identities


def linked_people(
    first: NDArray[np.int64], second: NDArray[np.int64], same: NDArray[np.bool_]
) -> tuple[Identities, Identities]:
    """Person of both sides of each pair: whoever genuine pairs connect is one.

    A lower bound on what belongs together: an image in impostor pairs only is a person of its own.

    Args:
        first, second: (N,) numbers of images (or templates), equal for the same one.
        same: (N,) whether a pair is genuine.
    """
    numbers, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    one, other = place[: len(first)], place[len(first) :]
    links = coo_array(
        (np.ones(int(same.sum())), (one[same], other[same])), shape=(len(numbers),) * 2
    )
    person = connected_components(links, directed=False)[1].astype(np.int64)
    return person[one], person[other]


def numbered(words: Sequence[bytes] | Sequence[str]) -> NDArray[np.int64]:
    """Equal words get equal numbers."""
    numbers: dict[bytes | str, int] = {}
    return np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int64)
