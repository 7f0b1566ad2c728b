"""Image quality in verification: QMagFace scores, error-versus-reject curves."""

import numpy as np
from numpy.typing import NDArray

from marginface.utils.errors import InputError

Floats = NDArray[np.floating]


def qmagface_scores(
    scores: Floats, quality1: Floats, quality2: Floats, alpha: float, beta: float
) -> Floats:
    """Scores lowered where an image is bad: s + q min(0, beta s - alpha), q the lower quality.

    QMagFace (arXiv 2111.13475), where the quality is the norm of a MagFace embedding.

    Args:
        scores: (N,) cosines.
        quality1, quality2: (N,) quality of both images, for instance embedding norms.
        alpha, beta: fitted on training pairs of the same network; they have no values for all.

    Raises:
        InputError: lengths that differ.
    """
    _check(scores, quality1, quality2)
    return scores + np.minimum(quality1, quality2) * np.minimum(0, beta * scores - alpha)


def error_versus_reject(
    scores: Floats,
    same: NDArray[np.bool_],
    quality1: Floats,
    quality2: Floats,
    threshold: float,
    steps: int = 20,
) -> tuple[Floats, Floats]:
    """FNMR at a fixed threshold when the genuine pairs with the lowest quality are left out.

    A quality is good when the curve falls (Grother and Tabassi 2007, there ERC).

    Args:
        scores: (N,) similarities.
        same: (N,) whether a pair is genuine.
        quality1, quality2: (N,) quality of both images; a pair has the lower one.
        threshold: accept scores >= it.
        steps: points from 0 to 95 % left out.

    Returns:
        (steps,) share left out and (steps,) FNMR of the others.

    Raises:
        InputError: lengths that differ, or no genuine pair.
    """
    _check(scores, same, quality1, quality2)
    if not same.any():
        raise InputError("there is no genuine pair; an error-versus-reject curve needs some")
    missed = (scores < threshold)[same]
    order = np.argsort(np.minimum(quality1, quality2)[same], kind="stable")
    # Misses among the best k, for every k.
    remaining = np.cumsum(missed[order][::-1])
    shares = np.linspace(0, 0.95, steps)
    kept = np.maximum(np.round((1 - shares) * len(missed)).astype(np.int64), 1)
    return shares, remaining[kept - 1] / kept


def _check(*columns: NDArray) -> None:
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise InputError(f"scores, labels and qualities must be equally many, got {lengths}")
