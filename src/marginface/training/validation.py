"""Verification during training: embeddings of all processes, results, metrics."""

from typing import Any

import lightning as L
from torch import Tensor

from marginface.data.pairs.verification_sets import VerificationSet
from marginface.inference.pair_thresholds import set_thresholds
from marginface.metrics.pair_verification import PairVerification
from marginface.metrics.thresholds import Threshold
from marginface.metrics.verification import PairResult
from marginface.utils.console import rank_zero_print
from marginface.utils.errors import NotFiniteError


class Verification:
    """Collects the embeddings of the verification sets and keeps the last results.

    Attributes:
        results: of the last validation, by name of the set.
        thresholds: by false match rate, of all sets.
        after_steps: optimizer steps done when it ran; None before the first.
    """

    def __init__(self) -> None:
        self.results: dict[str, PairResult] = {}
        self.thresholds: list[Threshold] = []
        self.after_steps: int | None = None
        self._under_way: list[PairVerification] = []

    def begin(self, sets: list[VerificationSet]) -> None:
        """Before the first batch."""
        # A plain list would do on one process; torchmetrics gathers from all of them.
        self._under_way = [PairVerification(v.pairs, v.same, len(v)) for v in sets]

    def update(self, number: int, embeddings: Tensor, indices: Tensor) -> None:
        """Take in a batch of set `number`."""
        self._under_way[number].update(embeddings, indices)

    def finish(self, trainer: L.Trainer, sets: list[VerificationSet]) -> None:
        """Compute the results of all sets that were embedded as a whole."""
        found = {v.name: self._result(n, v, trainer) for n, v in enumerate(sets)}
        self.results = {name: result for name, result in found.items() if result is not None}
        self.after_steps = trainer.global_step
        if trainer.is_global_zero:
            self.thresholds = [
                threshold
                for n, v in enumerate(sets)
                if v.name in self.results
                for threshold in self._thresholds(n, v)
            ]
        self._under_way = []

    def forget(self) -> None:
        """As before the first validation."""
        self.results, self.thresholds, self.after_steps = {}, [], None

    def metrics(self) -> dict[str, float]:
        """The last validation as val/<set>/<metric>, and the mean accuracy over the sets."""
        metrics = {
            f"val/{name}/{metric}": value
            for name, result in self.results.items()
            for metric, value in result.metrics().items()
        }
        if self.results:
            accuracies = [result.accuracy for result in self.results.values()]
            metrics["val/mean/accuracy"] = sum(accuracies) / len(accuracies)
        return metrics

    def _thresholds(self, number: int, verification: VerificationSet) -> list[Threshold]:
        result, table = self.results[verification.name], self._under_way[number].table
        assert table is not None, "it was computed"
        scores = result.scores.numpy()
        return set_thresholds(verification, scores, table, flip=True, precision="32-true")

    def _result(
        self, number: int, verification: VerificationSet, trainer: L.Trainer
    ) -> PairResult | None:
        """From all processes; None where it cannot be had."""
        if trainer.sanity_checking:
            return None
        loaders: Any = trainer.val_dataloaders
        if trainer.num_val_batches[number] < len(loaders[number]):
            rank_zero_print(
                f"{verification.name}: trainer.limit_val_batches leaves images out, not verified"
            )
            return None
        metric = self._under_way[number]
        try:
            metric.compute()
        except NotFiniteError:
            if trainer.global_step > 0:
                raise
            # Running batch statistics are still 0 and 1; a deep network may overflow with them.
            rank_zero_print(
                f"{verification.name}: the untrained network's embeddings are not finite"
            )
        return metric.result
