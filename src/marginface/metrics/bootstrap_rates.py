"""Error rates of weighted pairs, for bootstrap replicates."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from marginface.metrics.bootstrap import Weights
from marginface.metrics.score_measures import FNMR_AT
from marginface.metrics.verification import rate_name

Floats = NDArray[np.float64]
_HIGHEST, _SAMPLED = 400_000, 200_000
_LEAST_SPREAD = 0.1  # of the scores of a replicate, as a share of that of all


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
        self.genuine_scores = scores[self.genuine].astype(np.float64)
        self.impostor_scores = scores[self.impostor].astype(np.float64)
        self._spread = float(np.sqrt((self.genuine_scores.var() + self.impostor_scores.var()) / 2))
        high, low = -scores[self.genuine], -scores[self.impostor]  # both ascending
        # Impostors above each genuine score, and not below it; genuine scores above each impostor.
        self.above = np.searchsorted(low, high, side="left")
        self.not_below = np.searchsorted(low, high, side="right")
        self.genuine_above = np.searchsorted(high, low, side="left")
        self.genuine_from = np.searchsorted(high, low, side="right")
        self.first = np.flatnonzero(np.diff(low, prepend=-np.inf))  # of impostors of one score
        self.last = np.append(self.first[1:], len(low)) - 1
        # Between two impostor scores without a genuine one the ROC is straight: no points there.
        self.corners = np.unique([0, *self.above, len(low)])

    def pairs(self) -> NDArray[np.int64]:
        """The pairs that are looked at; weights of others do not matter."""
        return np.concatenate([self.genuine, self.impostor])

    def __call__(self, weights: Weights, fars: Sequence[float]) -> dict[str, float]:
        """The rates by their names in metrics: `tar@1e-3`, ..., `auc` and `eer`.

        Args:
            weights: of `pairs()`, in that order.
            fars: rates in [0, 1].
        """
        names = [f"tar@{rate_name(far)}" for far in fars]
        genuine = np.concatenate([[0.0], np.cumsum(weights[: len(self.genuine)])])
        own = weights[: len(self.genuine)]
        impostor = np.concatenate([[0.0], np.cumsum(weights[len(self.genuine) :] * self.factor)])
        if not genuine[-1] or not impostor[-1]:
            return dict.fromkeys(["auc", "eer", *names], float("nan"))
        far, tar = impostor / impostor[-1], genuine / genuine[-1]
        # TAR just above an impostor score, where the next false accept has not happened yet.
        before = np.append(tar[self.genuine_above], 1.0)
        # But for the first point, which scikit-learn keeps, where it is that of an impostor.
        group = int((far[self.last + 1] > 0).argmax())  # the first that counts something
        first = self.last[group] + 1 if before[self.first[group]] == 0 else 0
        corners = np.union1d(self.corners, first)
        corner_far, corner_tar = far[corners], before[corners]
        is_corner = np.diff(corner_tar, prepend=0.0) > 0
        is_corner[[0, -1]] = True
        is_corner |= corners == first
        corner_far, corner_tar = corner_far[is_corner], corner_tar[is_corner]
        rates = {
            name: float(corner_tar[_nearest(corner_far, wanted)])
            for name, wanted in zip(names, fars, strict=True)
        }
        beaten = far[-1] - (far[self.above] + far[self.not_below]) / 2
        rates["auc"] = float((own * beaten).sum() / genuine[-1])
        # The ROC goes straight from just above the impostors of one score to just below them.
        x = np.column_stack([far[self.first], far[self.last + 1]]).ravel()
        y = np.column_stack([before[self.first], tar[self.genuine_from[self.last]]]).ravel()
        rates["eer"] = _equal_error(np.concatenate([[0], x, [1]]), np.concatenate([[0], y, [1]]))
        return rates

    def measures(self, weights: Weights) -> dict[str, float]:
        """d' and the FNMRs of `metrics.score_measures`, weights as above."""
        own = weights[: len(self.genuine)]
        others = weights[len(self.genuine) :] * self.factor
        if not own.any() or not others.any():
            return dict.fromkeys(["d_prime", *FNMR_AT], float("nan"))
        mean, variance = _moments(self.genuine_scores, own)
        other_mean, other_variance = _moments(self.impostor_scores, others)
        spread = float(np.sqrt((variance + other_variance) / 2))
        # A replicate that drew hardly more than one score says nothing of their spread.
        is_known = spread > _LEAST_SPREAD * self._spread
        found = {"d_prime": abs(mean - other_mean) / spread if is_known else float("nan")}
        accepted, passed = np.cumsum(others), np.concatenate([[0.0], np.cumsum(own)])
        for name, rate in FNMR_AT.items():
            # The first impostor that would be one too many; genuine scores up to it are refused.
            first = int(np.searchsorted(accepted, rate * accepted[-1] * (1 + 1e-9), side="right"))
            limit = self.impostor_scores[min(first, len(accepted) - 1)]
            above = int(np.searchsorted(-self.genuine_scores, -limit, side="left"))
            found[name] = float(1 - passed[above] / passed[-1])
        return found


def _moments(scores: Floats, weights: Weights) -> tuple[float, float]:
    """Mean and variance of weighted scores."""
    mean = float(np.average(scores, weights=weights))
    return mean, float(np.average((scores - mean) ** 2, weights=weights))


def _equal_error(far: Floats, tar: Floats) -> float:
    """Where the lines through these points of a ROC have FAR = 1 - TAR."""
    gap = far - (1 - tar)
    right = int((gap >= 0).argmax())  # not the first point, which is (0, 0)
    share = gap[right] / (gap[right] - gap[right - 1])
    return float(far[right] - share * (far[right] - far[right - 1]))


def _nearest(far: Floats, wanted: float) -> int:
    """Place of the ascending rate nearest to `wanted`, the last of equally near ones."""
    right = min(int(np.searchsorted(far, wanted)), len(far) - 1)
    if right and wanted - far[right - 1] < far[right] - wanted:
        right -= 1
    return int(np.searchsorted(far, far[right], side="right")) - 1
