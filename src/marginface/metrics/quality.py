"""Image quality in verification: QMagFace scores, error-versus-reject curves."""

import numpy as np
from numpy.typing import NDArray

from marginface.utils.errors import InputError

Floats = NDArray[np.floating]
_SAME_QUALITY = 1e-5  # relative
DISCARDED = 0.2  # share of pairs that the area under an error-versus-discard curve goes to


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


class DiscardArea:
    """Partial area under the error-versus-discard curve, divided by its width; sorted once.

    It is the mean FNMR while a share of 0 to `most` of the genuine pairs is left out, those of
    lowest quality first (pAUC of Schlett et al., arXiv 2303.13294); the lower, the better.

    Args:
        scores, same, quality1, quality2, threshold: as for `error_versus_reject`.
        most: largest share left out, in (0, 1).
    """

    def __init__(
        self,
        scores: Floats,
        same: NDArray[np.bool_],
        quality1: Floats,
        quality2: Floats,
        threshold: float,
        most: float = DISCARDED,
    ) -> None:
        _check(scores, same, quality1, quality2)
        lowest = np.minimum(quality1, quality2)[same]
        order = np.argsort(lowest, kind="stable")
        self._order = np.flatnonzero(same)[order]
        self._missed = (scores < threshold)[self._order]
        # Pairs of one image have its quality up to rounding, and no order among themselves: they
        # are left out together, in parts.
        sizes = np.abs(lowest[order])
        self._last = np.append(np.diff(lowest[order]) > _SAME_QUALITY * sizes[1:], True)
        self._most = most

    def __call__(self, weights: Floats | None = None) -> float:
        """The area; `weights` (N,) say how often each pair counts, once when not given."""
        weight = np.ones(len(self._order)) if weights is None else weights[self._order]
        left, missing = np.cumsum(weight), np.cumsum(weight * self._missed)
        if not len(left) or not left[-1]:
            return float("nan")
        shares = np.linspace(0, self._most, 101)
        # A pair in the middle of a share counts in part.
        discarded, gone_then = (np.append(0.0, c[self._last]) for c in (left, missing))
        gone = np.interp(shares * left[-1], discarded, gone_then)
        fnmr = (missing[-1] - gone) / (left[-1] * (1 - shares))
        return float(np.trapezoid(fnmr, shares) / self._most)


def _check(*columns: NDArray) -> None:
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise InputError(f"scores, labels and qualities must be equally many, got {lengths}")
