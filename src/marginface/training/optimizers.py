"""SGD and AdamW for millions of class centers.

With a sparse gradient (sampled centers) only the rows that have one move: the others, their
momentum and their moments stay as they are, weight decay included, and are not even read. Large
dense parameters are stepped block by block, so that no temporary is as large as they are. Or the
backward pass steps a parameter itself, so that not even its gradient is. The numbers are torch's in
all cases.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from marginface.classifier.center_step import AdamWNumbers, CenterStep, SGDNumbers
from marginface.utils.errors import InputError

Group = dict[str, Any]
State = dict[str, Tensor]  # rows of momentum or moments
_LARGE = 1 << 24  # numbers from which a parameter is stepped in blocks
_BLOCK = 1 << 21  # numbers of a block: it should stay in the cache of a CPU
_BLOCK_ON_GPU = 1 << 25  # temporaries of 128 MiB, and few launches


class _ByRows(torch.optim.Optimizer):
    """Steps sparse and large gradients by rows, and leaves all others to torch."""

    _stepped_in_backward: Tensor | None = None
    _has_stepped = False  # since the last call of step

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One optimizer step; gradients of all kinds may be mixed.

        Raises:
            ValueError: an option of torch's that has no version by rows.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._has_stepped = False
        if self._stepped_in_backward is not None and self._stepped_in_backward.grad is not None:
            raise InputError(
                "classifier.optimizer_in_backward=true: the class centers have been stepped and "
                "got one more gradient, from elsewhere in the loss; this head needs "
                "classifier.optimizer_in_backward=false"
            )
        by_rows = list(self._by_rows())
        for _, parameter, _ in by_rows:
            parameter.grad = None  # torch's step passes over it
        super().step()
        for group, parameter, gradient in by_rows:
            if gradient.is_sparse:
                self._step_sparse(group, parameter, gradient.coalesce())
            else:
                self._step_blocks(group, parameter, gradient)
            parameter.grad = gradient
        return loss

    def step_in_backward(self, parameter: Tensor) -> Callable[[], CenterStep]:
        """Let the backward pass step the rows of a parameter as soon as their gradient is there.

        Returns:
            what begins a step, to be called once before each call of `step`, which then expects no
            gradient of the parameter; it returns what steps rows, to be called once for each row
            with a gradient.

        Raises:
            ValueError: an option of torch's that has no version by rows.
        """
        self.check_group(self._group_of(parameter))
        self._stepped_in_backward = parameter

        def begin() -> CenterStep:
            if self._has_stepped:
                raise InputError(
                    "classifier.optimizer_in_backward=true: a second backward pass before "
                    "optimizer.step(): gradients cannot be accumulated"
                )
            self._has_stepped = True
            # Looked up anew, because loading a state replaces the groups.
            group, done = self._group_of(parameter), self._begin_step(parameter)
            state = self._state_of(group, parameter)  # also where no row will be stepped
            return CenterStep(
                lambda rows, gradient: self._step_at(group, parameter, done, rows, gradient),
                self.numbers_of_step(group, done, state),
            )

        return begin

    def _group_of(self, parameter: Tensor) -> Group:
        return next(g for g in self.param_groups if any(p is parameter for p in g["params"]))

    def _by_rows(self) -> Iterator[tuple[Group, nn.Parameter, Tensor]]:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    self.check_group(group)
                    yield group, p, p.grad
                elif self._is_large(p) and not (group.get("fused") or group.get("amsgrad")):
                    yield group, p, p.grad

    @staticmethod
    def _is_large(p: Tensor) -> bool:
        plain = p.ndim == 2 and p.is_contiguous() and not isinstance(p, DTensor)
        return plain and p.numel() >= _LARGE

    @staticmethod
    def check_group(group: Group) -> None:
        """ValueError for options that steps of some rows cannot have."""
        for option in ("fused", "amsgrad"):
            if group.get(option):
                raise ValueError(f"{option}=true has no version for some rows only; leave it out")

    def _step_sparse(self, group: Group, parameter: Tensor, gradient: Tensor) -> None:
        done = self._begin_step(parameter)
        self._step_at(group, parameter, done, gradient.indices()[0], gradient.values())

    def _step_blocks(self, group: Group, parameter: Tensor, gradient: Tensor) -> None:
        done = self._begin_step(parameter)
        block = _BLOCK if parameter.device.type == "cpu" else _BLOCK_ON_GPU
        size = max(block // parameter.shape[1], 1)
        for start in range(0, len(parameter), size):
            rows = slice(start, start + size)
            self._step_at(group, parameter, done, rows, gradient[rows])

    @torch.no_grad()
    def _step_at(
        self,
        group: Group,
        parameter: Tensor,
        done: int,
        rows: slice | Tensor,
        gradient: Tensor,
    ) -> None:
        kept = self._state_of(group, parameter)
        values = parameter[rows]
        moved = {key: value[rows] for key, value in kept.items()}
        self.step_rows(group, done, values, gradient, moved)
        if isinstance(rows, Tensor):  # those were copies
            parameter[rows] = values
            for key, value in kept.items():
                value[rows] = moved[key]

    def _state_of(self, group: Group, parameter: Tensor) -> State:
        state = self.state[parameter]
        for key in self.names_of_state(group):
            if state.get(key) is None:
                # Zeros, so a row's first gradient is treated like all later ones.
                state[key] = torch.zeros_like(parameter)
        return {key: state[key] for key in self.names_of_state(group)}

    def _begin_step(self, parameter: Tensor) -> int:
        """How many steps the parameter has had with this one, where that is counted."""
        return 0

    def names_of_state(self, group: Group) -> tuple[str, ...]:
        """What is kept for each row, by torch's names."""
        raise NotImplementedError

    def step_rows(
        self, group: Group, done: int, values: Tensor, gradient: Tensor, state: State
    ) -> None:
        """Change (S, D) rows of a parameter and of its state in place; the gradient stays."""
        raise NotImplementedError

    def numbers_of_step(
        self, group: Group, done: int, state: State
    ) -> SGDNumbers | AdamWNumbers | None:
        """What `step_rows` computes, for kernels that do it themselves; None: no other does."""
        return None


class SGD(_ByRows, torch.optim.SGD):
    """torch.optim.SGD; sparse gradients move only their rows."""

    def names_of_state(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def step_rows(
        self, group: Group, done: int, values: Tensor, gradient: Tensor, state: State
    ) -> None:
        """Weight decay, momentum and step, in torch's order."""
        momentum = group["momentum"]
        if group["maximize"]:
            gradient = -gradient
        if group["weight_decay"]:
            gradient = gradient.add(values, alpha=group["weight_decay"])
        if momentum:
            buffer = state["momentum_buffer"]
            buffer.mul_(momentum).add_(gradient, alpha=1 - group["dampening"])
            gradient = gradient.add(buffer, alpha=momentum) if group["nesterov"] else buffer
        values.add_(gradient, alpha=-group["lr"])

    def numbers_of_step(self, group: Group, done: int, state: State) -> SGDNumbers | None:
        if type(self).step_rows is not SGD.step_rows:
            return None
        keys = ("lr", "weight_decay", "momentum", "dampening", "nesterov", "maximize")
        return SGDNumbers(state.get("momentum_buffer"), **{key: group[key] for key in keys})


class AdamW(_ByRows, torch.optim.AdamW):
    """torch.optim.AdamW; sparse gradients move only their rows.

    The bias correction counts the optimizer's steps, not those in which a row was seen.
    """

    def names_of_state(self, group: Group) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def _begin_step(self, parameter: Tensor) -> int:
        state = self.state[parameter]
        state["step"] = state.get("step", torch.tensor(0.0)) + 1
        return int(state["step"])

    def step_rows(
        self, group: Group, done: int, values: Tensor, gradient: Tensor, state: State
    ) -> None:
        """Weight decay, moments and step, in torch's order."""
        if group["maximize"]:
            gradient = -gradient
        beta1, beta2 = group["betas"]
        values.mul_(1 - group["lr"] * group["weight_decay"])
        first = state["exp_avg"].lerp_(gradient, 1 - beta1)
        second = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        spread = second.sqrt().div_((1 - beta2**done) ** 0.5).add_(group["eps"])
        values.addcdiv_(first, spread, value=-group["lr"] / (1 - beta1**done))

    def numbers_of_step(self, group: Group, done: int, state: State) -> AdamWNumbers | None:
        if type(self).step_rows is not AdamW.step_rows:
            return None
        keys = ("lr", "weight_decay", "eps", "maximize")
        numbers = {key: group[key] for key in keys}
        beta1, beta2 = group["betas"]
        first, second = state["exp_avg"], state["exp_avg_sq"]
        return AdamWNumbers(first, second, beta1=beta1, beta2=beta2, done=done, **numbers)


def step_in_backward(
    optimizer: torch.optim.Optimizer, parameter: Tensor
) -> Callable[[], CenterStep]:
    """`step_in_backward` of an optimizer that has it.

    Raises:
        InputError: one that has not.
    """
    if not isinstance(optimizer, _ByRows):
        raise InputError(
            f"classifier.optimizer_in_backward=true: {type(optimizer).__name__} cannot step parts "
            "of a parameter; use optimizer=sgd or optimizer=adamw"
        )
    return optimizer.step_in_backward(parameter)


def number_of(parameter: Tensor, optimizer: torch.optim.Optimizer) -> int:
    """Which of the optimizer's parameters this is, as its state_dict numbers them."""
    owned = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for number, p in enumerate(owned) if p is parameter]
    assert numbers, "the parameter is not in the optimizer"
    return numbers[0]
