"""How unequal the error rates of groups of people are: FDR, IR and GARBE, with intervals."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from marginface.metrics.bootstrap import Estimate, Identities, Weights, intervals, pair_weights
from marginface.utils.errors import InputError

Rates = Sequence[float] | NDArray[np.floating]
ALPHA = 0.5  # how much false matches count against false non-matches


def fairness_discrepancy_rate(fmrs: Rates, fnmrs: Rates, alpha: float = ALPHA) -> float:
    """FDR: 1 - (alpha max |FMR_i - FMR_j| + (1 - alpha) max |FNMR_i - FNMR_j|); 1 is equal.

    Pereira and Marcel, "Fairness in biometrics" (arXiv 2011.02395), equations 2 to 4.

    Args:
        fmrs, fnmrs: of two groups or more, at one threshold.
        alpha: weight of false matches, in [0, 1].
    """
    a, b = _checked(fmrs, fnmrs)
    return 1 - (alpha * float(np.ptp(a)) + (1 - alpha) * float(np.ptp(b)))


def inequity_rate(fmrs: Rates, fnmrs: Rates, alpha: float = ALPHA) -> float:
    """IR: (max FMR / min FMR)^alpha (max FNMR / min FNMR)^(1 - alpha); 1 is equal.

    Grother, NIST IR 8429 (2022). NaN where a group has no error: the ratio is not defined.

    Args: see `fairness_discrepancy_rate`.
    """
    a, b = _checked(fmrs, fnmrs)
    if not a.min() or not b.min():
        return math.nan
    return float((a.max() / a.min()) ** alpha * (b.max() / b.min()) ** (1 - alpha))


def garbe(fmrs: Rates, fnmrs: Rates, alpha: float = ALPHA) -> float:
    """GARBE: alpha Gini(FMR) + (1 - alpha) Gini(FNMR); 0 is equal, 1 as unequal as can be.

    Howard et al., "Evaluating proposed fairness models for face recognition algorithms" (arXiv
    2203.05051): the Gini coefficient with n / (n - 1) for n groups; 0 where no group has an error.

    Args: see `fairness_discrepancy_rate`.
    """
    a, b = _checked(fmrs, fnmrs)
    return alpha * _gini(a) + (1 - alpha) * _gini(b)


def fairness(
    scores: NDArray[np.floating],
    same: NDArray[np.bool_],
    group1: NDArray[np.str_],
    group2: NDArray[np.str_],
    identity1: Identities,
    identity2: Identities,
    threshold: float,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """FDR, IR and GARBE of the pairs within groups, with intervals over people.

    Args:
        scores: (N,) similarities.
        same: (N,) whether a pair is genuine.
        group1, group2: (N,) group of both images; pairs between groups are left out.
        identity1, identity2: (N,) person of both.
        threshold: accept scores >= it; the same for all groups.
        replicates, seed: of the bootstrap.

    Returns:
        `fdr`, `ir` (missing where it is not defined) and `garbe`; nothing where fewer than two
        groups have pairs of both kinds.
    """
    names = [
        name
        for name in np.unique(group1[group1 == group2])
        if {bool(s) for s in same[(group1 == name) & (group2 == name)]} == {True, False}
    ]
    if len(names) < 2:
        return {}
    within = (group1 == group2) & np.isin(group1, names)
    group = np.searchsorted(names, group1[within])
    kind, wrong = same[within], (scores >= threshold)[within] != same[within]
    cell = 2 * group + kind

    def indices(weights: Weights) -> dict[str, float]:
        total = np.bincount(cell, weights, 2 * len(names))
        if not total.all():  # a group that nobody was drawn of
            return dict.fromkeys(("fdr", "ir", "garbe"), math.nan)
        rate = np.bincount(cell, weights * wrong, 2 * len(names)) / total
        fmrs, fnmrs = rate[0::2], rate[1::2]
        return {
            "fdr": fairness_discrepancy_rate(fmrs, fnmrs),
            "ir": inequity_rate(fmrs, fnmrs),
            "garbe": garbe(fmrs, fnmrs),
        }

    values = indices(np.ones(len(cell)))
    drawn = pair_weights(identity1[within], identity2[within], replicates, seed)
    found = intervals(values, indices, drawn, {})
    return {name: estimate for name, estimate in found.items() if math.isfinite(estimate.value)}


def _gini(rates: NDArray[np.float64]) -> float:
    n, mean = len(rates), float(rates.mean())
    if not mean:
        return 0.0
    spread = np.abs(rates[:, None] - rates[None, :]).sum() / (2 * n**2 * mean)
    return float(n / (n - 1) * spread)


def _checked(fmrs: Rates, fnmrs: Rates) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = np.asarray(fmrs, np.float64), np.asarray(fnmrs, np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise InputError(
            f"indices over groups need FMR and FNMR of two groups or more, got {a.shape} and "
            f"{b.shape} rates"
        )
    return a, b
