"""Intervals of identification rates: the subjects of the probes drawn again, the gallery kept."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from marginface.evaluation.bootstrap import Estimate, Weights, identity_weights, intervals
from marginface.evaluation.identify import IdentificationResult
from marginface.evaluation.pairs import rate_name


class _Weighted:
    """One search under changing weights of its probes; sorted once."""

    def __init__(self, result: IdentificationResult, subject: NDArray[np.int64]) -> None:
        mated = result.is_mated.numpy()
        self.mated, self.other = subject[mated], subject[~mated]
        self.position = result.position.numpy()
        self.own, self.leads = result.own.numpy(), (result.own > result.other).numpy()
        best = result.best.numpy()
        order = np.argsort(-best, kind="stable")
        self.best, self.other = best[order], self.other[order]

    def __call__(
        self, drawn: Weights, ranks: Sequence[int], fpirs: Sequence[float]
    ) -> dict[str, float]:
        weight = drawn[self.mated]
        total = weight.sum()
        if not total:
            return {}
        rates = {f"rank{k}": weight[self.position <= k].sum() / total for k in ranks}
        if fpirs:
            accepted = np.cumsum(drawn[self.other])
            for fpir in fpirs:
                # The first non-mated search that would be one too many.
                place = int(np.searchsorted(accepted, fpir * accepted[-1] + 1e-9, side="right"))
                limit = self.best[place] if place < len(self.best) else -math.inf
                found = weight[self.leads & (self.own > limit)].sum()
                rates[f"tpir@{rate_name(fpir)}"] = found / total
        return rates


def identification_intervals(
    results: Sequence[IdentificationResult],
    probe_subjects: NDArray,
    replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Rates averaged over galleries that the same probes were searched in, with intervals.

    Args:
        results: one for each gallery, with the same ranks and FPIRs.
        probe_subjects: (P,) subject of each probe.
        replicates, seed: of the bootstrap.
    """
    subjects, number = np.unique(np.asarray(probe_subjects), return_inverse=True)
    searches = [_Weighted(result, number) for result in results]
    ranks, fpirs = list(results[0].rank), list(results[0].tpir_at_fpir)
    names = list(results[0].metrics())
    values = {name: _mean([r.metrics()[name] for r in results]) for name in names}

    def statistic(drawn: Weights) -> dict[str, float]:
        found = [search(drawn, ranks, fpirs) for search in searches]
        return {name: _mean([rates.get(name, math.nan) for rates in found]) for name in names}

    weights = identity_weights(len(subjects), replicates, seed)
    return intervals(values, statistic, weights, len(subjects))


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values))
