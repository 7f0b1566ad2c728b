"""What makes the numbers of a pair file mislead, known before anything is embedded."""

import numpy as np
from numpy.typing import NDArray

from marginface.data.pairs.verification_sets import PairFile


def pair_cautions(pairs: PairFile, folds: int = 10) -> list[str]:
    """A sentence for each reason.

    Args:
        pairs: the file.
        folds: of the accuracy.
    """
    found = [_folds_of_one_kind(pairs.same, folds), _pairs_of_one_image(pairs)]
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


def _pairs_of_one_image(pairs: PairFile) -> str | None:
    """Pairs of an image with itself: by their bytes, or by its name in a list."""
    twice = [
        number
        for number, (first, second) in enumerate(pairs.pairs.tolist())
        if pairs.encoded[first] == pairs.encoded[second]
    ]
    if not twice:
        return None
    genuine = int(pairs.same[twice].sum())
    return (
        f"{len(twice)} of {len(pairs.same)} pairs, {genuine} of them genuine, are an image with "
        f"itself, the first is pair {twice[0]} ({pairs.describe(2 * twice[0])}): their scores are "
        "1 whatever the network; take them out"
    )
