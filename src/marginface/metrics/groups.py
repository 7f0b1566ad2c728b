"""Error rates of groups of people at one threshold."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marginface.metrics.bootstrap import Estimate, Identities, intervals, pair_weights
from marginface.utils.errors import InputError

MIXED = "between groups"


class GroupRates(NamedTuple):
    """What a threshold does to a group; a rate is None without a pair to know it from."""

    group: str
    genuine: int
    impostor: int
    fnmr: Estimate | None
    fmr: Estimate | None


def group_rates(
    scores: NDArray[np.floating],
    same: NDArray[np.bool_],
    group1: NDArray[np.str_],
    group2: NDArray[np.str_],
    identity1: Identities,
    identity2: Identities,
    threshold: float,
    replicates: int = 1000,
    seed: int = 0,
) -> list[GroupRates]:
    """FNMR and FMR of pairs within each group, and of pairs between groups.

    Args:
        scores: (N,) similarities.
        same: (N,) whether a pair is genuine.
        group1, group2: (N,) group of both images.
        identity1, identity2: (N,) person of both, for the intervals.
        threshold: accept scores >= it; the same for all groups.
        replicates, seed: of the bootstrap.

    Raises:
        InputError: lengths that differ.
    """
    lengths = {len(c) for c in (scores, same, group1, group2, identity1, identity2)}
    if len(lengths) > 1:
        raise InputError(f"scores, labels, groups and identities differ in length: {lengths}")
    group = np.where(group1 == group2, group1, MIXED)
    accepted = scores >= threshold
    rates = []
    for name in [*sorted(set(group) - {MIXED}), *({MIXED} & set(group))]:
        kinds = {"fnmr": (group == name) & same, "fmr": (group == name) & ~same}
        estimates = {
            kind: _rate(accepted != same, taken, identity1, identity2, replicates, seed)
            for kind, taken in kinds.items()
        }
        counts = [int(taken.sum()) for taken in kinds.values()]
        rates.append(GroupRates(str(name), counts[0], counts[1], **estimates))
    return rates


def _rate(
    wrong: NDArray[np.bool_],
    taken: NDArray[np.bool_],
    identity1: Identities,
    identity2: Identities,
    replicates: int,
    seed: int,
) -> Estimate | None:
    if not taken.any():
        return None
    chosen, one, other = wrong[taken], identity1[taken], identity2[taken]

    def rate(weights: NDArray[np.float64]) -> dict[str, float]:
        total = weights.sum()
        return {"rate": float(weights[chosen].sum() / total) if total else float("nan")}

    people = {"rate": len(np.unique(np.concatenate([one, other])))}
    drawn = pair_weights(one, other, replicates, seed)
    return intervals({"rate": float(chosen.mean())}, rate, drawn, people)["rate"]
