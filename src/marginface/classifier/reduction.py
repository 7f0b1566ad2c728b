"""What a loss keeps of all other classes: one number per row, from chunks that are seen once.

A reduction is fed the (n, R) logits of chunk after chunk; `finish` then adds up the processes and
returns whether it needs all chunks again. Sums are kept in float64.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from marginface.utils.distributed import add_over_ranks, largest_over_ranks

MASKED = -1e30  # logit of a class that does not count; finite, so that 0 x MASKED is 0


class Reduction:
    """The sum over other classes that a loss is made of.

    `value` is (R,) and known once `finish` returned False; `weights` is its derivative.
    """

    value: Tensor
    has_threshold: ClassVar[bool] = False  # subtracted from all logits, and learned

    def __init__(self, across_ranks: bool = False) -> None:
        self._add: Callable[[Tensor], Tensor] = add_over_ranks if across_ranks else _unchanged
        self._max: Callable[[Tensor], Tensor] = largest_over_ranks if across_ranks else _unchanged

    def begin(self, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        """Before the first chunk."""
        self.rows, self.dtype, self.device = rows, dtype, device

    def zeros(self) -> Tensor:
        """(R,) where sums begin."""
        return torch.zeros(self.rows, dtype=torch.float64, device=self.device)

    def update(self, logits: Tensor, scratch: Tensor) -> None:
        """Take in a chunk; scratch is as large and may be overwritten."""
        raise NotImplementedError

    def finish(self) -> bool:
        """At the end of a pass over all chunks: whether another one is needed."""
        raise NotImplementedError

    def weights(self, logits: Tensor, out: Tensor) -> Tensor:
        """(n, R) d value / d logit, written to out."""
        raise NotImplementedError


class Largest(Reduction):
    """value = max_j z_j, with `position` of the first one among the chunks of this process."""

    def begin(self, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        super().begin(rows, dtype, device)
        self.value = torch.full((rows,), 2 * MASKED, dtype=dtype, device=device)
        self.position = torch.full((rows,), -1, dtype=torch.int64, device=device)
        self._seen = 0

    def update(self, logits: Tensor, scratch: Tensor) -> None:
        value, position = logits.max(0)
        better = value > self.value
        self.value = torch.where(better, value, self.value)
        self.position = torch.where(better, position + self._seen, self.position)
        self._seen += len(logits)

    def finish(self) -> bool:
        return False


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor
