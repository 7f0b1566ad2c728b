"""Buffers that follow the batches: once per optimizer step, from its whole global batch."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from marginface.heads._batch import LabeledBatch
from marginface.utils.distributed import gather_rows, gather_rows_of_any_number


class RunningState(nn.Module):
    """Advances a module's buffers the same way however a global batch is split.

    Micro-batches of one optimizer step advance the buffers once: each starts from where the step
    began and sees all rows of the step so far, those of other processes included.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[Tensor] = []  # observed in this optimizer step
        self._before: list[Tensor] = []  # the buffers when it began
        self._trainer_counts_steps = False
        self.optimizer_step = -1  # the one under way; a resumed run sets where it is

    def snapshot(self) -> Callable[[], AbstractContextManager[None]]:
        """The state as it is now: a context in which it is restored, for a later backward pass."""
        now = [buffer.clone() for buffer in self.buffers()]

        @contextmanager
        def restored() -> Iterator[None]:
            later = [buffer.clone() for buffer in self.buffers()]
            try:
                for buffer, value in zip(self.buffers(), now, strict=True):
                    buffer.copy_(value)
                yield
            finally:
                for buffer, value in zip(self.buffers(), later, strict=True):
                    buffer.copy_(value)

        return restored

    def advance(self, observed: Tensor) -> None:
        """Move the buffers by one optimizer step.

        Args:
            observed: (N,) or (N, k) what `observe` was given for the whole global batch, N > 0.
        """

    def begin_step(self, step: int | None = None) -> None:
        """Called by a trainer before the first micro-batch of an optimizer step.

        Without it, as in a plain loop, every call in training mode is a step of its own.

        Args:
            step: its number, None: the next one.
        """
        self._trainer_counts_steps = True
        self._open_step(step)

    def end_steps(self) -> None:
        """Called by a trainer when it is done; calls are steps of their own again."""
        self._trainer_counts_steps = False

    def _open_step(self, step: int | None = None) -> None:
        self.optimizer_step = self.optimizer_step + 1 if step is None else step
        self._seen.clear()
        self._before = [buffer.clone() for buffer in self.buffers()]

    def restore_step_start(self) -> None:
        """Return to where the optimizer step began; a head calls it before it uses its state."""
        if not self.training:
            return
        if not self._trainer_counts_steps:
            self._open_step()
            return  # the step begins here
        for buffer, before in zip(self.buffers(), self._before, strict=True):
            buffer.copy_(before)

    @torch.no_grad()
    def observe(self, values: Tensor, batch: LabeledBatch) -> None:
        """Advance the state, in training mode, from values of this batch's labeled rows.

        Args:
            values: (R,) or (R, k), one row for each row of the batch.
            batch: where they come from; rows of this process only are gathered from all
                processes, so that their states stay the same.
        """
        if not self.training:
            return
        values = values.detach()
        if not batch.has_all_rows:
            gather = gather_rows if batch.equal_parts else gather_rows_of_any_number
            values = gather(values)
        self._seen.append(values)
        observed = torch.cat(self._seen)
        if len(observed):
            self.advance(observed)
