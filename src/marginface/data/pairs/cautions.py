"""What makes the numbers of a pair file mislead, known before anything is embedded."""

import numpy as np
from numpy.typing import NDArray

from marginface.data.image_files import same_content
from marginface.data.images import ANY_IMAGE
from marginface.data.pairs.verification_sets import PairFile
from marginface.utils.errors import InputError


def pair_cautions(pairs: PairFile, folds: int = 10) -> list[str]:
    """A sentence for each reason.

    Args:
        pairs: the file.
        folds: of the accuracy.
    """
    found = [_folds_of_one_kind(pairs.same, folds), _pairs_of_one_image(pairs), _other_size(pairs)]
    return [caution for caution in found if caution is not None]


def _folds_of_one_kind(same: NDArray[np.bool_], folds: int) -> str | None:
    """Folds are contiguous parts: in a file that is sorted by kind they hold one kind each."""
    parts = np.array_split(same, folds)
    single = sum(len(part) > 3 and len(np.unique(part)) == 1 for part in parts)
    if not single:
        return None
    return (
        f"{single} of {folds} folds hold pairs of one kind only, as the file is sorted by kind. "
        "The threshold of the other folds does not fit them, so the accuracy is off; mix genuine "
        "and impostor pairs (AUC, EER and TAR do not depend on the order)"
    )


def _other_size(pairs: PairFile) -> str | None:
    """Images of another size than the network takes are scaled, as insightface's reader does."""
    try:
        height, width = ANY_IMAGE.decode(pairs.image_bytes(0)).shape[:2]
    except InputError:  # reported where all images are read
        return None
    size = pairs.image_size
    if (height, width) == (size, size):
        return None
    return (
        f"the first image has {width}x{height} pixels and the network takes {size}x{size}: images "
        "are scaled, and their center is cut out. Faces that were aligned for another size, or not "
        "at all, give worse numbers; align them for this one"
    )


def _are_one(pairs: PairFile, first: int, second: int) -> bool:
    one, other = pairs.encoded[first], pairs.encoded[second]
    if one == other or isinstance(one, bytes) or isinstance(other, bytes):
        return one == other
    assert pairs.root is not None
    return same_content(pairs.root, one, other)


def _pairs_of_one_image(pairs: PairFile) -> str | None:
    """Pairs of an image with itself, by its bytes."""
    twice = [
        number
        for number, (first, second) in enumerate(pairs.pairs.tolist())
        if _are_one(pairs, first, second)
    ]
    if not twice:
        return None
    genuine = int(pairs.same[twice].sum())
    first = pairs.describe(int(pairs.pairs[twice[0], 0]))
    return (
        f"{len(twice)} of {len(pairs.same)} pairs, {genuine} of them genuine, are an image with "
        f"itself, the first is pair {twice[0]} ({first}): their scores are "
        "1 whatever the network; take them out"
    )
