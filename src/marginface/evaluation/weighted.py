"""Rates of pairs that count unequally often: what a bootstrap replicate is evaluated with."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from marginface.evaluation.bootstrap import Weights

Floats = NDArray[np.float64]
_HIGHEST, _SAMPLED = 400_000, 200_000


class WeightedRates:
    """TAR at FAR, AUC and EER of pairs under changing weights; sorted once.

    Of more than 600,000 impostor pairs the 400,000 highest are kept and 200,000 of the others,
    drawn at random, which stand for all of them.

    Args:
        scores: (N,) similarities.
        same: (N,) whether a pair is genuine.
        seed: decides which impostor pairs stand for others.
    """

    def __init__(
        self, scores: NDArray[np.floating], same: NDArray[np.bool_], seed: int = 0
    ) -> None:
        genuine, impostor = np.flatnonzero(same), np.flatnonzero(~same)
        factor = np.ones(len(impostor))
        if len(impostor) > _HIGHEST + _SAMPLED:
            order = np.argpartition(-scores[impostor], _HIGHEST)
            rest = order[_HIGHEST:]
            drawn = np.random.default_rng(seed).choice(rest, _SAMPLED, replace=False)
            impostor = impostor[np.concatenate([order[:_HIGHEST], drawn])]
            factor = np.ones(len(impostor))
            factor[_HIGHEST:] = len(rest) / _SAMPLED
        order = np.argsort(-scores[impostor], kind="stable")
        self.impostor, self.factor = impostor[order], factor[order]
        self.genuine = genuine[np.argsort(-scores[genuine], kind="stable")]
        high, low = -scores[self.genuine], -scores[self.impostor]  # both ascending
        # Impostors above each genuine score, and not below it; genuine scores above each impostor.
        self.above = np.searchsorted(low, high, side="left")
        self.not_below = np.searchsorted(low, high, side="right")
        self.genuine_above = np.searchsorted(high, low, side="left")
        self.genuine_from = np.searchsorted(high, low, side="right")

    def pairs(self) -> NDArray[np.int64]:
        """The pairs that are looked at; weights of others do not matter."""
        return np.concatenate([self.genuine, self.impostor])

    def __call__(self, weights: Weights, fars: Sequence[float]) -> dict[str, float]:
        """The rates as `tar@<far>` (under its number), `auc` and `eer`.

        Args:
            weights: of `pairs()`, in that order.
            fars: rates in [0, 1]; the keys "0.001" and so on are repr(far).
        """
        genuine = np.concatenate([[0.0], np.cumsum(weights[: len(self.genuine)])])
        own = weights[: len(self.genuine)]
        impostor = np.concatenate([[0.0], np.cumsum(weights[len(self.genuine) :] * self.factor)])
        if not genuine[-1] or not impostor[-1]:
            return dict.fromkeys(["auc", "eer", *map(repr, fars)], float("nan"))
        far, tar = impostor / impostor[-1], genuine / genuine[-1]
        # TAR just above each impostor score, where the next false accept has not happened yet.
        before = np.append(tar[self.genuine_above], 1.0)
        rates = {repr(f): float(before[self._nearest(far, f)]) for f in fars}
        beaten = far[-1] - (far[self.above] + far[self.not_below]) / 2
        rates["auc"] = float((own * beaten).sum() / genuine[-1])
        miss = np.append(1.0, 1 - tar[self.genuine_from])  # at each impostor score
        right = int((far >= miss).argmax())
        gap = far[right] - miss[right], far[right - 1] - miss[right - 1]
        share = gap[0] / (gap[0] - gap[1]) if right else 0.0
        rates["eer"] = float(far[right] - share * (far[right] - far[right - 1]))
        return rates

    @staticmethod
    def _nearest(far: Floats, wanted: float) -> int:
        right = min(int(np.searchsorted(far, wanted)), len(far) - 1)
        if right and wanted - far[right - 1] < far[right] - wanted:
            right -= 1
        # Of impostors that count nothing, the last: it leaves the most genuine pairs accepted.
        return int(np.searchsorted(far, far[right], side="right")) - 1
