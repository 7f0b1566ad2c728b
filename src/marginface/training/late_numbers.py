"""Numbers of a step that the host reads one step late, so that it never waits for the device."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Numbers:
    """What a step left to be looked at, with whatever is needed to say more about it."""

    values: Any  # nested lists
    of_step: Any


class LateNumbers:
    """Passes tensors on to the host: at once where they are there, else one step later.

    A GPU works behind the host. Reading what it has just been asked for would stop the host until
    the GPU has caught up, and the GPU until the host has queued more; what it was asked for a step
    ago is there. The copy goes through page-locked memory in the meantime.
    """

    def __init__(self) -> None:
        self._copy: tuple[Tensor, torch.cuda.Event, Any] | None = None

    def exchange(self, tensor: Tensor, of_step: Any) -> Numbers | None:
        """Leave the numbers of this step and take those that are there.

        Returns:
            On a CPU those of this step. Else those of the step before, None in the first step.
        """
        if tensor.device.type != "cuda":
            return Numbers(tensor.tolist(), of_step)
        before = self.take()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._copy = host, event, of_step
        return before

    def take(self) -> Numbers | None:
        """The numbers that have not been looked at yet, waiting for them if it has to be."""
        if self._copy is None:
            return None
        host, event, of_step = self._copy
        self._copy = None
        event.synchronize()
        return Numbers(host.tolist(), of_step)
