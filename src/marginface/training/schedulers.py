"""Learning-rate schedules in closed form: a factor on the base rate for every optimizer step.

Each function takes its settings and the length of the run, and returns factor(step) for steps
0 .. total_steps - 1. Warm-up rises linearly and reaches the full rate at its last step.
"""

import math
from collections.abc import Callable, Sequence

from torch.optim.lr_scheduler import LambdaLR

from marginface.utils.arguments import NotNegative
from marginface.utils.console import rank_zero_print
from marginface.utils.errors import InputError

Schedule = Callable[[int], float]


def constant(
    *, total_steps: int, steps_per_epoch: int, warmup_epochs: NotNegative = 0.0
) -> Schedule:
    """The base rate after warm-up."""
    return _with_warmup(lambda _: 1.0, warmup_epochs * steps_per_epoch)


def multistep(
    *,
    total_steps: int,
    steps_per_epoch: int,
    milestones: Sequence[float],
    gamma: float = 0.1,
    warmup_epochs: NotNegative = 0.0,
) -> Schedule:
    """Multiply by `gamma` at each of the `milestones`, given in epochs."""
    boundaries = [round(m * steps_per_epoch) for m in milestones]
    if boundaries != sorted(boundaries):
        raise InputError(f"scheduler.milestones must rise, got {list(milestones)}")

    def factor(step: int) -> float:
        return gamma ** sum(step >= boundary for boundary in boundaries)

    return _with_warmup(factor, warmup_epochs * steps_per_epoch)


def poly(
    *, total_steps: int, steps_per_epoch: int, power: float = 1.0, warmup_epochs: NotNegative = 0.0
) -> Schedule:
    """(1 - progress)^power, progress counted after warm-up (insightface: power 1)."""
    warmup = warmup_epochs * steps_per_epoch
    return _with_warmup(lambda step: (1 - _progress(step, total_steps, warmup)) ** power, warmup)


def cosine(
    *,
    total_steps: int,
    steps_per_epoch: int,
    final_factor: float = 0.0,
    warmup_epochs: NotNegative = 0.0,
) -> Schedule:
    """Half a cosine from 1 to `final_factor`, after warm-up."""
    warmup = warmup_epochs * steps_per_epoch

    def factor(step: int) -> float:
        half = 0.5 * (1 + math.cos(math.pi * _progress(step, total_steps, warmup)))
        return final_factor + (1 - final_factor) * half

    return _with_warmup(factor, warmup)


def trapezoidal(
    *,
    total_steps: int,
    steps_per_epoch: int,
    decay: float = 0.5,
    warmup_epochs: NotNegative = 0.0,
) -> Schedule:
    """The base rate after warm-up, then linearly to 0 over the last share `decay` of the rest.

    Also called warmup-stable-decay (Hu et al., MiniCPM, arXiv 2404.06395). 0 < decay <= 1.
    """
    if not 0 < decay <= 1:
        raise InputError(f"scheduler.decay must be within (0, 1], got {decay:g}")
    warmup = warmup_epochs * steps_per_epoch

    def factor(step: int) -> float:
        return min((1 - _progress(step, total_steps, warmup)) / decay, 1.0)

    return _with_warmup(factor, warmup)


def follow_schedule(scheduler: LambdaLR) -> None:
    """Set the rates of this step as the schedule says them, and say so where they change.

    A checkpoint holds rates of the schedule it was written with, which may have had another length.
    """
    groups = scheduler.optimizer.param_groups
    before = [float(group["lr"]) for group in groups]
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    for group, base, factor in zip(groups, scheduler.base_lrs, factors, strict=True):
        group["lr"] = base * factor
    now = [float(group["lr"]) for group in groups]
    if now != before:
        rank_zero_print(
            f"the learning rate is {max(now):g} from here on, not {max(before):g}: the run has "
            "another number of steps than before"
        )


def _progress(step: int, total_steps: int, warmup: float) -> float:
    return min(max(step - warmup, 0) / max(total_steps - warmup, 1), 1.0)


def _with_warmup(factor: Schedule, warmup: float) -> Schedule:
    if warmup < 0:
        raise InputError(f"scheduler.warmup_epochs must not be negative, got {warmup:g} steps")
    return lambda step: factor(step) * (min((step + 1) / warmup, 1.0) if warmup else 1.0)
