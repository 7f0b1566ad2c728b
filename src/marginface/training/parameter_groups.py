"""Which parameters an optimizer gets, with their rates and weight decays, and a table of them."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from marginface.backbones.depth import parameter_depths, part_names
from marginface.heads import MarginHead
from marginface.training.finetuning import FineTuning
from marginface.utils.errors import InputError
from marginface.utils.tables import make_table, print_table

Group = dict[str, Any]
FACTOR = "lr_factor"  # of a group: its rate as a share of the optimizer's


def parameter_groups(
    backbone: nn.Module,
    head: nn.Module,
    decay_bias_and_norm: bool,
    finetuning: FineTuning | None = None,
) -> list[Group]:
    """The trainable parameters, those without weight decay in groups of their own.

    Args:
        decay_bias_and_norm: whether weight decay also acts on biases, norms and other vectors.
        finetuning: gives rates and weight decays; `apply_factors` puts the rates in force.
    """
    tuning = finetuning or FineTuning()
    rates = tuning.rates(backbone)
    found: dict[tuple[str, float, float | None, bool], list[Tensor]] = {}
    for part, module in (("backbone", backbone), ("head", head)):
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            special = tuning.group_of(f"{part}.{name}")
            rate = special.get("lr", 1.0) * (rates.get(name, 1.0) if part == "backbone" else 1.0)
            decayed = decay_bias_and_norm or parameter.ndim > 1
            # A group each: where one is sharded over processes and the other is not, optimizers
            # that step many tensors at once cannot have both.
            key = (part, rate, special.get("weight_decay"))
            for is_decayed in (True, False):  # both, so that their order is always the same
                found.setdefault((*key, is_decayed), [])
            found[(*key, decayed)].append(parameter)
    return [
        _group(rate, weight_decay if is_decayed else 0.0, parameters)
        for (_, rate, weight_decay, is_decayed), parameters in found.items()
        if parameters
    ]


def _group(rate: float, weight_decay: float | None, parameters: list[Tensor]) -> Group:
    group: Group = {"params": parameters}
    if rate != 1.0:
        group[FACTOR] = rate
    if weight_decay is not None:  # else that of the optimizer
        group["weight_decay"] = weight_decay
    return group


def apply_factors(optimizer: Optimizer) -> None:
    """Multiply the rates of groups that have a factor; once, before a schedule begins."""
    for group in optimizer.param_groups:
        group["lr"] *= group.get(FACTOR, 1.0)


def parameter_count(modules: Iterable[nn.Module]) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for m in modules for p in m.parameters() if p.requires_grad)


def rate_of(optimizer: Optimizer) -> float:
    """The rate under way of what has no factor of its own, as the class centers."""
    for group in reversed(optimizer.param_groups):
        factor = group.get(FACTOR, 1.0)
        if factor:
            return float(group["lr"]) / float(factor)
    return 0.0


def print_parts(
    backbone: nn.Module, head: MarginHead, finetuning: FineTuning, rate: float | None
) -> None:
    """A table of what is trained and at which rate, part by part.

    Args:
        rate: of the optimizer, at its highest; None where it names none.
    """
    print_table(
        make_table(
            ["part", "parameters", "trained", "learning rate" if rate else "factor of the rate"],
            _rows(backbone, head, finetuning, rate or 1.0),
            title="what is trained",
        )
    )
    epochs = finetuning.resting_epochs()
    if epochs:
        print(f"the backbone rests for {epochs} epoch{'s' if epochs > 1 else ''}")


def _rows(
    backbone: nn.Module, head: MarginHead, finetuning: FineTuning, rate: float
) -> Iterator[list[str]]:
    try:
        depths = parameter_depths(backbone, coarse=True)
    except InputError:  # a network without timm's grouping
        depths = dict.fromkeys((name for name, _ in backbone.named_parameters()), 0)
    names, rates = part_names(depths), finetuning.rates(backbone)
    for depth, name in names.items():
        inside = {
            n: p for n, p in backbone.named_parameters() if depths[n] == depth
        }  # fmt: skip
        factors = [
            rates.get(n, 1.0) * finetuning.group_of(f"backbone.{n}").get("lr", 1.0)
            for n, p in inside.items()
            if p.requires_grad
        ]
        yield _row(name, list(inside.values()), factors, rate)
    factors = [
        finetuning.group_of(f"head.{n}").get("lr", 1.0)
        for n, p in head.named_parameters()
        if p.requires_grad
    ]
    yield _row("class centers", list(head.parameters()), factors, rate)


def _row(name: str, parameters: list[nn.Parameter], factors: list[float], rate: float) -> list[str]:
    total = sum(p.numel() for p in parameters)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    words = "all" if trained == total else f"{trained:,}" if trained else "frozen"
    if not factors:
        return [name, f"{total:,}", words, "-"]
    low, high = min(factors) * rate, max(factors) * rate
    return [name, f"{total:,}", words, f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"]
