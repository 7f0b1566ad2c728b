"""Benchmarks of image pairs: LFW, CFP-FP, AgeDB-30, CALFW, CPLFW, VGG2-FP, and one's own."""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marginface.data.pairs.cautions import pair_cautions
from marginface.data.pairs.verification_sets import PairFile, load_pairs
from marginface.evaluation.benchmarks.base import (
    BenchmarkResult,
    BenchmarkTask,
    HardPair,
    PairDecisions,
    ResultTable,
)
from marginface.evaluation.cautions import rate_caution
from marginface.inference.pair_thresholds import people_of_pairs, set_thresholds
from marginface.metrics.bootstrap import Estimate, Identities, intervals, pair_weights, people_of
from marginface.metrics.bootstrap_rates import WeightedRates
from marginface.metrics.cross_validation import (
    Binned,
    ThresholdRule,
    bin_by_threshold,
    check_folds,
    fold_accuracy,
)
from marginface.metrics.fairness import fairness
from marginface.metrics.groups import group_rates
from marginface.metrics.operating_points import operating_points
from marginface.metrics.quality import DiscardArea, error_versus_reject, qmagface_scores
from marginface.metrics.score_measures import score_measures
from marginface.metrics.scores import check_finite, checked_pairs, sort_scores
from marginface.metrics.verification import (
    DEFAULT_FARS,
    PairResult,
    evaluate_distances,
    pair_distances,
    rate_name,
)
from marginface.utils.arguments import NotNegative, Probability, Seed, WholeNumber
from marginface.utils.console import tracked
from marginface.utils.errors import InputError, NotFiniteError

_RULES = {
    "grid": "insightface's: squared distances 0 to 3.99 in steps of 0.01, on the other folds",
    "exact": "between any two neighboring distances, on the other folds",
    "in_sample": "OPTIMISTIC: one for all, chosen on the very pairs it is judged on (X2-Softmax's)",
}
_OTHER_ACCURACIES = {
    "grid": "accuracy_grid",
    "exact": "accuracy_exact",
    "in_sample": "accuracy_in_sample",
}
_MOST_BINS = 4096  # of an exact rule within the bootstrap
_GROUP_FMR = 1e-2
HARDEST = 12

# Person of both sides of each pair, and further columns of a .csv.
KnownPeople = tuple[tuple[Identities, Identities], dict[str, NDArray[np.str_]]]


class PairsBenchmark:
    """Verification on one or several pair files.

    Args:
        files: .bin, LFW's pairs.txt or .csv with the columns first,second,same and, if known,
            identity1,identity2 and group (or group1,group2).
        root: folder of the files and of the images that lists name; null: as the files say.
        faulty: an image that cannot be read stops the evaluation, or its pairs are left out and
            counted, which changes the protocol.
        folds: of the accuracy.
        thresholds: how the threshold of `accuracy` is found: grid, exact or in_sample.
        fars: rates to report TAR at.
        bootstrap: replicates for the intervals.
        seed: of the bootstrap.
        qmagface: {alpha: ..., beta: ...} to lower scores of bad images; null leaves them. Such
            scores are not cosines then, so a threshold of the grid becomes an exact one.
    """

    def __init__(
        self,
        files: list[str],
        *,
        root: str | None = None,
        faulty: Literal["stop", "skip"] = "stop",
        folds: int = 10,
        thresholds: ThresholdRule = "grid",
        fars: Sequence[Probability] = DEFAULT_FARS,
        bootstrap: WholeNumber = 1000,
        seed: Seed = 0,
        qmagface: dict[str, NotNegative] | None = None,
    ) -> None:
        if not files:
            raise InputError("a benchmark of pairs needs files, got none")
        if qmagface is not None and qmagface.keys() != {"alpha", "beta"}:
            raise InputError(f"qmagface needs alpha and beta, got {sorted(qmagface)}")
        self.rules: list[ThresholdRule] = [thresholds]
        if qmagface is not None and thresholds == "grid":
            self.rules = ["exact"]
        others: tuple[ThresholdRule, ...] = ("grid", "exact", "in_sample")
        self.rules += [
            rule
            for rule in others
            if rule not in self.rules and not (rule == "grid" and qmagface is not None)
        ]
        self.files, self.root, self.faulty, self.folds = files, root, faulty, folds
        self.fars, self.bootstrap, self.seed, self.qmagface = tuple(fars), bootstrap, seed, qmagface

    def tasks(self, name: str, image_size: int) -> list[BenchmarkTask]:
        found = []
        for file in self.files:
            path = Path(file) if self.root is None else Path(self.root) / file
            if not path.exists() and Path(file).is_file():
                path = Path(file)  # the root is that of the images
            pairs = load_pairs(path, root=self.root, image_size=image_size, faulty=self.faulty)
            # A published set goes by its name, whatever the file is called.
            title = name if len(self.files) == 1 and name != "pairs" else pairs.name
            self.check_pairs(pairs.same)
            evaluate = partial(self.evaluate, title, pairs, people_of_pairs(pairs)[:2])
            cautions = pair_cautions(pairs, self.folds)
            found.append(BenchmarkTask(title, pairs, evaluate, cautions, evaluate))
        return found

    def check_pairs(self, same: NDArray[np.bool_]) -> None:
        """InputError for pairs that no rate can be told of: now, because embedding takes long.

        Args:
            same: (N,) whether pairs are genuine.
        """
        check_folds(self.folds, len(same), self.rules[0])
        checked_pairs(torch.zeros(len(same)), torch.from_numpy(same))

    def evaluate(
        self,
        name: str,
        pairs: PairFile,
        known: KnownPeople,
        embeddings: Tensor,
        others: Tensor | None = None,
    ) -> BenchmarkResult:
        """Results of one file from the embeddings of its images.

        Args:
            name: of the file.
            pairs, known: the pairs, and what is known of the people in them.
            embeddings: (images, D).
            others: (images, D) by another network, for the second image of each pair.
        """
        whole = pairs
        if self.faulty == "skip":
            pairs, known = _without_faulty(pairs, known, embeddings)
        else:
            check_finite(embeddings, "embeddings")
        people, columns = known
        tables = embeddings, embeddings if others is None else others
        first, second = (
            table[torch.from_numpy(column)]
            for table, column in zip(tables, pairs.pairs.T, strict=True)
        )
        quality1, quality2 = (side.norm(dim=1).double().numpy() for side in (first, second))
        distance = pair_distances(first, second)
        if self.qmagface is not None:
            alpha, beta = self.qmagface["alpha"], self.qmagface["beta"]
            cosines = (1 - distance / 2).numpy()
            lowered = qmagface_scores(cosines, quality1, quality2, alpha, beta)
            distance = torch.from_numpy(2 - 2 * lowered)
        labels, same = torch.from_numpy(pairs.same), pairs.same
        result = evaluate_distances(distance, labels, self.folds, self.fars, self.rules[0])
        scores, scored = result.scores.numpy(), sort_scores(result.scores, labels)
        limit = operating_points(scored, [_GROUP_FMR])[0].threshold
        qualities = quality1, quality2
        estimates, groups = self._estimates(result, distance, people, qualities, limit), []
        # Not among the metrics: exports that give unit vectors have the others.
        discard_area = estimates.pop("edc_pauc")
        has_quality = np.ptp(quality1) > 1e-5 * quality1.max()
        if "group1" in columns:
            sides = columns["group1"], columns["group2"]
            given = scores, same, *sides, *people, limit
            groups = group_rates(*given, replicates=self.bootstrap, seed=self.seed)
            estimates |= fairness(*given, replicates=self.bootstrap, seed=self.seed)
        thresholds = []
        if self.qmagface is None and self.faulty == "stop" and others is None:
            # How they were embedded is added where that is known.
            cosines = result.scores.numpy()
            thresholds = set_thresholds(pairs, cosines, embeddings, flip=True, precision="")
        return BenchmarkResult(
            name,
            self._protocol(),
            estimates,
            {
                "pairs": len(same),
                "genuine": int(same.sum()),
                "impostor": int((~same).sum()),
                "images": len(pairs),
                "people, as far as pairs tell": len(np.unique(np.concatenate(people))),
            },
            pairs=scored,
            pairs_sha256=hashlib.sha256(pairs.content_hash().encode() + same.tobytes()).hexdigest(),
            decisions=PairDecisions(
                scores, same, result.correct.numpy(), *people, compared=np.ones_like(same)
            ),
            hard=_hardest(scores, pairs),
            groups=groups,
            group_threshold=limit,
            reject=error_versus_reject(scores, same, *qualities, limit) if has_quality else None,
            discard_area=discard_area if has_quality else None,
            tables=[] if self.qmagface is not None else [_insightface_table(result)],
            cautions=[
                *_left_out(whole, pairs),
                *rate_caution("tar@far", self.fars, int((~same).sum())),
            ],
            thresholds=thresholds,
            min_norm=float(np.quantile(np.concatenate([quality1, quality2]), 0.01)),
        )

    def _protocol(self) -> list[str]:
        scores = "cosine of the embeddings"
        if self.qmagface is not None:
            alpha, beta = self.qmagface["alpha"], self.qmagface["beta"]
            scores += f" lowered by quality (QMagFace, alpha {alpha}, beta {beta}, quality = norm)"
        names = ["accuracy", *(_OTHER_ACCURACIES[rule] for rule in self.rules[1:])]
        return [
            "images: as they are, aligned beforehand",
            f"scores: {scores}",
            f"accuracies: {self.folds} contiguous folds, for each the first threshold that is best",
            *(f"{n}: threshold {_RULES[r]}" for n, r in zip(names, self.rules, strict=True)),
            "tar@far: all pairs, the ROC point whose FAR is nearest, not interpolated",
            f"intervals: 95 %, {self.bootstrap} bootstrap replicates over people",
        ]

    def _estimates(
        self,
        result: PairResult,
        distance: Tensor,
        people: tuple[Identities, Identities],
        qualities: tuple[NDArray[np.float64], NDArray[np.float64]],
        limit: float,
    ) -> dict[str, Estimate]:
        values = result.metrics() | score_measures(sort_scores(result.scores, result.same))
        area = DiscardArea(result.scores.numpy(), result.same.numpy(), *qualities, limit)
        values["edc_pauc"] = area()
        accuracies = {"accuracy": _coarse(distance, result, self.folds, self.rules[0])}
        for rule in self.rules[1:]:
            other = evaluate_distances(distance, result.same, self.folds, (), rule)
            values[_OTHER_ACCURACIES[rule]] = other.accuracy
            accuracies[_OTHER_ACCURACIES[rule]] = _coarse(distance, result, self.folds, rule)
        rates = WeightedRates(result.scores.numpy(), result.same.numpy(), self.seed)
        looked_at = rates.pairs()

        # Each fold keeps its shares of genuine and impostor pairs, as the set was made to have.
        cell = 2 * accuracies["accuracy"].fold.numpy() + result.same.numpy()
        size = np.bincount(cell, minlength=2 * self.folds)

        def statistic(weights: NDArray[np.float64]) -> dict[str, float]:
            total = np.bincount(cell, weights, minlength=2 * self.folds)
            drawn = torch.from_numpy(weights * (size / np.maximum(total, 1e-9))[cell])
            folds = {name: fold_accuracy(binned, drawn) for name, binned in accuracies.items()}
            found = {name: float(fold.accuracy.nanmean()) for name, fold in folds.items()}
            found["accuracy_std"] = float(folds["accuracy"].accuracy.std(correction=0))
            found["threshold"] = float((1 - folds["accuracy"].threshold / 2).mean())
            found["edc_pauc"] = area(weights)
            found |= rates(weights[looked_at], self.fars) | rates.measures(weights[looked_at])
            return {name: value for name, value in found.items() if name in values}

        not_rates = ("accuracy_std", "threshold", "d_prime")
        rates_of = [name for name in values if name not in not_rates]
        trials = dict.fromkeys(rates_of, people_of(*people, result.same.numpy()))
        drawn = pair_weights(*people, self.bootstrap, self.seed)
        drawn = tracked(drawn, self.bootstrap, "intervals")
        return intervals(values, statistic, drawn, trials)


def _coarse(distance: Tensor, result: PairResult, folds: int, rule: ThresholdRule) -> Binned:
    """Pairs by threshold for the replicates; of more thresholds than matter, quantiles."""
    binned = bin_by_threshold(distance, result.same, folds, rule)
    if len(binned.thresholds) <= _MOST_BINS:
        return binned
    kept = torch.linspace(0, len(binned.thresholds) - 1, _MOST_BINS).long()
    thresholds = binned.thresholds[kept]
    bins = torch.searchsorted(thresholds, distance, right=True)
    return binned._replace(thresholds=thresholds, bins=bins)


def _without_faulty(
    pairs: PairFile, known: KnownPeople, embeddings: Tensor
) -> tuple[PairFile, KnownPeople]:
    """Pairs of which both images could be read; NotFiniteError for what the network is to blame."""
    is_read = torch.isfinite(embeddings).all(1)
    for image in (~is_read).nonzero().flatten().tolist():
        if pairs.is_readable(image):
            raise NotFiniteError(f"the embedding of {pairs.describe(image)} is NaN or infinite")
    read = is_read[torch.from_numpy(pairs.pairs)].all(1).numpy()
    (first, second), columns = known
    people = first[read], second[read]
    return pairs.take(read), (people, {name: column[read] for name, column in columns.items()})


def _left_out(whole: PairFile, pairs: PairFile) -> list[str]:
    number = len(whole.same) - len(pairs.same)
    if not number:
        return []
    return [
        f"{number} of {len(whole.same)} pairs were left out, because an image cannot be read "
        "(faulty=skip); this is no longer the published protocol"
    ]


def _hardest(scores: NDArray[np.float64], pairs: PairFile) -> dict[str, list[HardPair]]:
    genuine, impostor = np.flatnonzero(pairs.same), np.flatnonzero(~pairs.same)
    chosen = {
        "genuine": genuine[np.argsort(scores[genuine], kind="stable")[:HARDEST]],
        "impostor": impostor[np.argsort(-scores[impostor], kind="stable")[:HARDEST]],
    }
    return {
        kind: [
            HardPair(int(pairs.pairs[n, 0]), int(pairs.pairs[n, 1]), float(scores[n]))
            for n in numbers
        ]
        for kind, numbers in chosen.items()
    }


def _insightface_table(result: PairResult) -> ResultTable:
    rows = [(rate_name(far), tar) for far, tar in result.fold_tar_at_far.items()]
    title = "TAR by insightface's interpolation: threshold from the other folds, mean over folds"
    return ResultTable(title, ("FAR", "TAR"), rows)
