"""Pair verification as a torchmetrics metric, on any number of processes."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from marginface.metrics.verification import DEFAULT_FARS, PairResult, evaluate_pairs


class PairVerification(Metric):
    """`evaluate_pairs` on embeddings that arrive in batches, in any order, from any process.

    Args:
        pairs: (P, 2) image numbers of each pair.
        same: (P,) whether a pair shows one person.
        images: N, how many there are.
        folds, fars: see `evaluate_pairs`.

    Attributes:
        result: of the last `compute`, with scores and decisions.
        table: (N, D) embeddings of that.
    """

    full_state_update = False
    higher_is_better = True
    indices: list[Tensor]
    embeddings: list[Tensor]

    def __init__(
        self,
        pairs: Tensor | NDArray[Any],
        same: Tensor | NDArray[Any],
        images: int,
        folds: int = 10,
        fars: Sequence[float] = DEFAULT_FARS,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pairs, self.same = torch.as_tensor(pairs), torch.as_tensor(same)
        self.images, self.folds, self.fars = images, folds, tuple(fars)
        self.result: PairResult | None = None
        self.table: Tensor | None = None
        self.add_state("indices", default=[], dist_reduce_fx="cat")
        self.add_state("embeddings", default=[], dist_reduce_fx="cat")

    def update(self, embeddings: Tensor, indices: Tensor) -> None:
        """Add a batch.

        Args:
            embeddings: (B, D).
            indices: (B,) image number of each row; -1 for rows that only fill up a batch.
        """
        self.indices.append(indices)
        self.embeddings.append(embeddings)

    def compute(self) -> dict[str, Tensor]:
        """The metrics by name, the same on all processes.

        Raises:
            InputError: see `evaluate_pairs`.
        """
        indices, rows = (_joined(state).cpu() for state in (self.indices, self.embeddings))
        self.table = table_of(indices, rows, self.images)
        first, second = self.table[self.pairs.T]
        self.result = evaluate_pairs(
            torch.stack([first, second], 1).flatten(0, 1), self.same, self.folds, self.fars
        )
        return {
            name: torch.tensor(value, dtype=torch.float64)
            for name, value in self.result.metrics().items()
        }


def table_of(indices: Tensor, rows: Tensor, size: int) -> Tensor:
    """(size, ...) table whose row i is the one that came with index i.

    Args:
        indices: (N,) row numbers, -1 for rows to drop.
        rows: (N, ...) what belongs there.
        size: number of rows in the table; each must occur exactly once.
    """
    taken = indices >= 0
    indices, rows = indices[taken], rows[taken]
    counts = torch.bincount(indices, minlength=size)
    assert len(counts) == size, f"row {int(indices.max())} in a table of {size}"
    assert bool((counts == 1).all()), "each row must come from exactly one process"
    table = torch.empty((size, *rows.shape[1:]), dtype=rows.dtype)
    table[indices] = rows
    return table


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    # torchmetrics leaves one tensor where it gathered from several processes.
    return state if isinstance(state, Tensor) else torch.cat(state)
