"""Verification on pairs: insightface's 10-fold accuracy, and rates over all pairs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.errors import InputError
from marginface.evaluation.roc import area_under, equal_error_rate, nearest_tars, roc_curve

DISTANCE_STEPS = 400  # thresholds 0, 0.01, ... 3.99 on the squared distance
DEFAULT_FARS = (1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class PairResult:
    """Verification results as fractions.

    Attributes:
        accuracy, accuracy_std: mean and population standard deviation over the folds.
        fold_accuracy: of each fold.
        threshold: mean over the folds, as a cosine: accept a pair above it.
        tar_at_far: TAR at the ROC point nearest to each FAR, over all pairs.
        auc, eer: area under the ROC curve, equal error rate, over all pairs.
    """

    accuracy: float
    accuracy_std: float
    fold_accuracy: list[float]
    threshold: float
    tar_at_far: dict[float, float]
    auc: float
    eer: float

    def metrics(self) -> dict[str, float]:
        """The scalars under the names they are logged with."""
        tars = {f"tar@{far:.0e}".replace("e-0", "e-"): tar for far, tar in self.tar_at_far.items()}
        return {
            "accuracy": self.accuracy,
            "accuracy_std": self.accuracy_std,
            "auc": self.auc,
            "eer": self.eer,
            "threshold": self.threshold,
            **tars,
        }


def evaluate_pairs(
    embeddings: Tensor, same: Tensor, folds: int = 10, fars: tuple[float, ...] = DEFAULT_FARS
) -> PairResult:
    """Verify pairs the way insightface does.

    The accuracy is that of insightface's verification: squared distance of normalised embeddings,
    thresholds 0 to 3.99 in steps of 0.01, contiguous folds, for each fold the first threshold with
    the highest accuracy on the others (accept below it).

    Args:
        embeddings: (2N, D), pair i is rows 2i and 2i + 1. For the flip test add the embeddings of
            image and mirror image before.
        same: (N,) whether a pair shows one person.
        folds: number of folds, 2 to N.
        fars: false accept rates to report TAR at, in [0, 1].

    Raises:
        InputError: counts that do not fit, embeddings that are not finite, only one kind of pair.
    """
    embeddings = torch.as_tensor(embeddings).detach().cpu()
    same = torch.as_tensor(same).cpu().bool().flatten()
    _check(embeddings, same, folds)
    normalised = F.normalize(embeddings.to(torch.float64))
    distance = (normalised[0::2] - normalised[1::2]).square().sum(1)
    accuracy, thresholds = _fold_accuracy(distance, same, folds)
    roc = roc_curve(-distance, same)
    return PairResult(
        accuracy=float(accuracy.mean()),
        accuracy_std=float(accuracy.std(correction=0)),
        fold_accuracy=accuracy.tolist(),
        threshold=float((1 - thresholds / 2).mean()),
        tar_at_far=nearest_tars(roc, fars),
        auc=area_under(roc),
        eer=equal_error_rate(roc),
    )


def _fold_accuracy(distance: Tensor, same: Tensor, folds: int) -> tuple[Tensor, Tensor]:
    """Held-out accuracy and chosen threshold of each fold."""
    grid = torch.arange(DISTANCE_STEPS, dtype=torch.float64) * 0.01
    # The first grid threshold that accepts each pair; pairs count as right from there on or before.
    bins = torch.searchsorted(grid, distance, right=True)
    fold = torch.cat(
        [torch.full((len(part),), k) for k, part in enumerate(same.tensor_split(folds))]
    )
    # accepted[k, kind, t]: pairs of fold k and kind with distance < grid[t]
    counts = torch.zeros(folds, 2, DISTANCE_STEPS + 1, dtype=torch.int64)
    ones = torch.ones_like(bins)
    counts.index_put_((fold, same.long(), bins), ones, accumulate=True)
    accepted = counts[..., :DISTANCE_STEPS].cumsum(-1)
    impostors = counts[:, 0].sum(-1, keepdim=True)
    right = accepted[:, 1] + impostors - accepted[:, 0]  # (folds, thresholds)
    size = torch.bincount(fold, minlength=folds)
    others = (right.sum(0) - right).double() / (size.sum() - size)[:, None]
    best = others.argmax(1)  # the first maximum
    held_out = right[torch.arange(folds), best].double() / size
    return held_out, grid[best]


def _check(embeddings: Tensor, same: Tensor, folds: int) -> None:
    if embeddings.ndim != 2 or len(embeddings) != 2 * len(same):
        raise InputError(
            f"{len(same)} pairs need embeddings of shape ({2 * len(same)}, D), "
            f"got {tuple(embeddings.shape)}"
        )
    if not 2 <= folds <= len(same):
        raise InputError(f"folds must be between 2 and the {len(same)} pairs, got {folds}")
    if not torch.isfinite(embeddings).all():
        bad = int((~torch.isfinite(embeddings)).any(1).sum())
        raise InputError(f"{bad} of {len(embeddings)} embeddings are NaN or infinite")
