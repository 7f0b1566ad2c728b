"""SGD and AdamW that move only the rows with a gradient when that gradient is sparse.

With a dense gradient they are torch's. With a sparse one (sampled class centres) the other rows,
their momentum and their moments stay as they are, weight decay included, and are not even read.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

Group = dict[str, Any]


class _RowsOnly(torch.optim.Optimizer):
    """Takes sparse gradients away from the optimizer it is mixed into, and steps them by rows."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One optimizer step; dense and sparse gradients may be mixed."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sparse = list(self._sparse())
        for _, parameter, _ in sparse:
            parameter.grad = None  # torch's step passes over it
        super().step()
        for group, parameter, gradient in sparse:
            rows = gradient.indices()[0]
            self.step_rows(group, parameter, rows, gradient.values())
            parameter.grad = gradient
        return loss

    def _sparse(self) -> Iterator[tuple[Group, nn.Parameter, Tensor]]:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.grad.is_sparse:
                    yield group, parameter, parameter.grad.coalesce()

    def step_rows(
        self, group: Group, parameter: nn.Parameter, rows: Tensor, gradient: Tensor
    ) -> None:
        """Update (S,) rows of a parameter from their (S, D) gradient."""
        raise NotImplementedError


class SGD(_RowsOnly, torch.optim.SGD):
    """torch.optim.SGD; sparse gradients move only their rows."""

    def step_rows(
        self, group: Group, parameter: nn.Parameter, rows: Tensor, gradient: Tensor
    ) -> None:
        """Weight decay, momentum and step of these rows, in torch's order."""
        values = parameter[rows]
        if group["maximize"]:
            gradient = -gradient
        if group["weight_decay"]:
            gradient = gradient.add(values, alpha=group["weight_decay"])
        momentum = group["momentum"]
        if momentum:
            state = self.state[parameter]
            if state.get("momentum_buffer") is None:
                # Zeros, so a row's first gradient is damped like all later ones.
                state["momentum_buffer"] = torch.zeros_like(parameter)
            buffer = state["momentum_buffer"]
            moved = buffer[rows].mul_(momentum).add_(gradient, alpha=1 - group["dampening"])
            buffer[rows] = moved
            gradient = gradient.add(moved, alpha=momentum) if group["nesterov"] else moved
        parameter[rows] = values.sub_(gradient, alpha=group["lr"])


class AdamW(_RowsOnly, torch.optim.AdamW):
    """torch.optim.AdamW; sparse gradients move only their rows.

    The bias correction counts the optimizer's steps, not those in which a row was seen.
    """

    def step_rows(
        self, group: Group, parameter: nn.Parameter, rows: Tensor, gradient: Tensor
    ) -> None:
        """Moments, weight decay and step of these rows, in torch's order."""
        if group["amsgrad"]:
            raise ValueError("AdamW: amsgrad has no version for sparse gradients")
        state = self.state[parameter]
        if len(state) == 0:
            state["step"] = torch.tensor(0.0, dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        if group["maximize"]:
            gradient = -gradient
        beta1, beta2 = group["betas"]
        first = state["exp_avg"][rows].lerp_(gradient, 1 - beta1)
        second = state["exp_avg_sq"][rows].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = first, second
        done = float(state["step"])
        size = group["lr"] / (1 - beta1**done)
        spread = second.sqrt().div_((1 - beta2**done) ** 0.5).add_(group["eps"])
        values = parameter[rows].mul_(1 - group["lr"] * group["weight_decay"])
        parameter[rows] = values.addcdiv_(first, spread, value=-size)
