"""Intervals of identification rates: the subjects of the probes drawn again, the gallery kept."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from marginface.metrics.bootstrap import Estimate, Weights, identity_weights, intervals
from marginface.metrics.identification import IdentificationResult
from marginface.metrics.verification import rate_name


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
                if not accepted[-1]:  # nobody to find a threshold with
                    rates[f"tpir@{rate_name(fpir)}"] = math.nan
                    continue
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

    A closed set among open ones has no TPIR; the others are averaged.

    Args:
        results: one for each gallery.
        probe_subjects: (P,) subject of each probe.
        replicates, seed: of the bootstrap.
    """
    subjects, number = np.unique(np.asarray(probe_subjects), return_inverse=True)
    searches = [_Weighted(result, number) for result in results]
    metrics = [result.metrics() for result in results]
    names = list(dict.fromkeys(name for found in metrics for name in found))
    values = {name: _mean([found[name] for found in metrics if name in found]) for name in names}

    def statistic(drawn: Weights) -> dict[str, float]:
        rates = [
            dict.fromkeys(known, math.nan) | search(drawn, list(r.rank), list(r.tpir_at_fpir))
            for search, r, known in zip(searches, results, metrics, strict=True)
        ]
        return {name: _mean([found[name] for found in rates if name in found]) for name in names}

    weights = identity_weights(len(subjects), replicates, seed)
    mated = len(np.unique(np.concatenate([search.mated for search in searches])))
    return intervals(values, statistic, weights, dict.fromkeys(names, mated))


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values))


def with_fnir(rates: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Rates, and for every `tpir@x` also `fnir@x`: NIST's FNIR(N, 1, T) = 1 - TPIR."""
    missed = {
        name.replace("tpir", "fnir"): Estimate(1 - rate.value, 1 - rate.high, 1 - rate.low)
        for name, rate in rates.items()
        if name.startswith("tpir@")
    }
    return dict(rates) | missed
