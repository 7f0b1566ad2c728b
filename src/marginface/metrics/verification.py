"""Verification on pairs: insightface's 10-fold accuracy, and rates over all pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.metrics.cross_validation import (
    ThresholdRule,
    bin_by_threshold,
    fold_accuracy,
    tar_at_far_over_folds,
)
from marginface.metrics.roc import area_under, equal_error_rate, nearest_tars
from marginface.metrics.scores import check_finite, checked_rate, sort_scores
from marginface.utils.errors import InputError

DEFAULT_FARS = (1e-3, 1e-2, 1e-1)
_PAIRS = 1 << 10  # at once, in float64: stays in the cache


@dataclass(frozen=True)
class PairResult:
    """Verification results as fractions.

    Attributes:
        accuracy, accuracy_std: mean and population standard deviation over the folds.
        fold_accuracy: of each fold.
        threshold: mean over the folds, as a cosine: accept a pair above it.
        tar_at_far: TAR at the ROC point nearest to each FAR, over all pairs.
        fold_tar_at_far: TAR at each FAR by insightface's 10-fold interpolation.
        auc, eer: area under the ROC curve, equal error rate, over all pairs.
        scores: (N,) float64 cosines.
        same: (N,) whether a pair is genuine.
        correct: (N,) whether a pair was decided rightly at the threshold of its fold.
    """

    accuracy: float
    accuracy_std: float
    fold_accuracy: list[float]
    threshold: float
    tar_at_far: dict[float, float]
    fold_tar_at_far: dict[float, float]
    auc: float
    eer: float
    scores: Tensor = field(repr=False)
    same: Tensor = field(repr=False)
    correct: Tensor = field(repr=False)

    def metrics(self) -> dict[str, float]:
        """The scalars under the names they are logged with."""
        return {
            "accuracy": self.accuracy,
            "accuracy_std": self.accuracy_std,
            "auc": self.auc,
            "eer": self.eer,
            "threshold": self.threshold,
            **{f"tar@{rate_name(far)}": tar for far, tar in self.tar_at_far.items()},
        }


def evaluate_pairs(
    embeddings: Tensor,
    same: Tensor,
    folds: int = 10,
    fars: Sequence[float] = DEFAULT_FARS,
    thresholds: ThresholdRule = "grid",
) -> PairResult:
    """Verify pairs the way insightface does.

    The accuracy is that of insightface's verification: squared distance of normalized embeddings,
    thresholds 0 to 3.99 in steps of 0.01, contiguous folds, for each fold the first threshold with
    the highest accuracy on the others (accept below it).

    Args:
        embeddings: (2N, D), pair i is rows 2i and 2i + 1. For the flip test add the embeddings of
            image and mirror image before.
        same: (N,) whether a pair shows one person.
        folds: number of folds, 2 to N.
        fars: false accept rates to report TAR at, in [0, 1].
        thresholds: "grid" as above; "exact" between any two neighboring distances; "in_sample"
            one threshold for all pairs, chosen on the very pairs: optimistic (X2-Softmax's script,
            there without flip test).

    Raises:
        InputError: counts that do not fit, embeddings that are not finite, only one kind of pair.
    """
    embeddings = torch.as_tensor(embeddings).detach()
    same = torch.as_tensor(same).flatten().to(embeddings.device, torch.bool)
    if embeddings.ndim != 2 or len(embeddings) != 2 * len(same):
        raise InputError(
            f"{len(same)} pairs need embeddings of shape ({2 * len(same)}, D), "
            f"got {tuple(embeddings.shape)}"
        )
    check_finite(embeddings, "embeddings")
    distance = pair_distances(embeddings[0::2], embeddings[1::2])
    return evaluate_distances(distance, same, folds, fars, thresholds)


def evaluate_distances(
    distance: Tensor,
    same: Tensor,
    folds: int = 10,
    fars: Sequence[float] = DEFAULT_FARS,
    thresholds: ThresholdRule = "grid",
) -> PairResult:
    """The same from squared distances (N,), which are 2 - 2 x score for other scores."""
    for far in fars:
        checked_rate(far)
    distance, same = distance.double().cpu(), same.cpu()
    scores = 1 - distance / 2
    binned = bin_by_threshold(distance, same, folds, thresholds)
    pairs = sort_scores(scores, same)
    accuracy, threshold = fold_accuracy(binned)
    correct = (distance < threshold[binned.fold]) == same
    # One threshold for all pairs has one accuracy, also where folds are of different sizes.
    whole = correct.double() if thresholds == "in_sample" else accuracy
    return PairResult(
        accuracy=float(whole.mean()),
        accuracy_std=float(accuracy.std(correction=0)),
        fold_accuracy=accuracy.tolist(),
        threshold=float((1 - threshold / 2).mean()),
        tar_at_far=nearest_tars(pairs, fars),
        fold_tar_at_far=tar_at_far_over_folds(distance, same, folds, tuple(fars)),
        auc=area_under(pairs),
        eer=equal_error_rate(pairs),
        scores=scores,
        same=same,
        correct=correct,
    )


def pair_distances(first: Tensor, second: Tensor) -> Tensor:
    """(N,) float64 squared distances of normalized embeddings (N, D)."""
    parts = [
        (F.normalize(a.double()) - F.normalize(b.double())).square().sum(1)
        for a, b in zip(first.split(_PAIRS), second.split(_PAIRS), strict=True)
    ]
    return torch.cat(parts)


def rate_name(rate: float) -> str:
    """1e-3 for 0.001, as rates are named in metrics."""
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"
