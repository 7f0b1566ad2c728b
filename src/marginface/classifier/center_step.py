"""An optimizer step of class centers that the backward pass takes, chunk by chunk."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SGDNumbers:
    """Of torch.optim.SGD, with the state of the whole parameter."""

    momentum_buffer: Tensor | None
    lr: float
    weight_decay: float
    momentum: float
    dampening: float
    nesterov: bool
    maximize: bool


@dataclass(frozen=True)
class AdamWNumbers:
    """Of torch.optim.AdamW, with the state of the whole parameter."""

    exp_avg: Tensor
    exp_avg_sq: Tensor
    lr: float
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    done: int  # steps, with this one
    maximize: bool


@dataclass(frozen=True)
class CenterStep:
    """Steps rows of the centers: by a call, or in a kernel from its numbers.

    Args:
        step_rows: called with rows of the centers and their (n, D) gradient.
        numbers: what the step is made of; None: only `step_rows` knows.
    """

    step_rows: Callable[[slice | Tensor, Tensor], None]
    numbers: SGDNumbers | AdamWNumbers | None = None

    def __call__(self, rows: slice | Tensor, gradient: Tensor) -> None:
        self.step_rows(rows, gradient)
