"""Two networks on the same pairs: is one better, or are they equal?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from marginface.metrics.bootstrap import Estimate, Identities, intervals, pair_weights
from marginface.utils.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """A paired comparison.

    Attributes:
        difference: accuracy of the first minus that of the second, with its interval.
        only_first, only_second: pairs that only one of them decides rightly.
        p_value: of McNemar's exact test of these two numbers (1947; pairs as if independent).
        verdict: "first" or "second" where the interval leaves out 0, else "equal": results that
            people drawn again could turn round are a tie, whatever their digits.
    """

    difference: Estimate
    only_first: int
    only_second: int
    p_value: float
    verdict: str


def compare_decisions(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    identity1: Identities,
    identity2: Identities,
    replicates: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare two networks by which pairs they decide rightly.

    Args:
        first, second: (N,) whether each decides a pair rightly; the same pairs in the same order.
        identity1, identity2: (N,) person of both sides of each pair.
        replicates, seed: of the bootstrap.

    Raises:
        InputError: lengths that differ.
    """
    if not first.shape == second.shape == identity1.shape == identity2.shape:
        raise InputError(
            f"a paired comparison needs the same pairs, got {len(first)} and {len(second)} "
            f"decisions on {len(identity1)} pairs"
        )
    gain = first.astype(np.float64) - second

    def difference(weights: NDArray[np.float64]) -> dict[str, float]:
        total = weights.sum()
        return {"accuracy": float((weights * gain).sum() / total) if total else float("nan")}

    estimate = intervals(
        {"accuracy": float(gain.mean())},
        difference,
        pair_weights(identity1, identity2, replicates, seed),
        {},
    )["accuracy"]
    only_first, only_second = int((gain > 0).sum()), int((gain < 0).sum())
    discordant = only_first + only_second
    verdict = "first" if estimate.low > 0 else "second" if estimate.high < 0 else "equal"
    if not discordant:
        estimate, verdict = Estimate(0.0, 0.0, 0.0), "equal"
    return Comparison(
        difference=estimate,
        only_first=only_first,
        only_second=only_second,
        p_value=float(binomtest(only_first, discordant).pvalue) if discordant else 1.0,
        verdict=verdict,
    )
