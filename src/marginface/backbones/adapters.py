"""Low-rank adapters (LoRA, arXiv 2106.09685) in a network, by the library peft."""

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from marginface.utils.arguments import WholeNumber
from marginface.utils.errors import InputError
from marginface.utils.optional_packages import require_package


@dataclass(frozen=True)
class AdapterOptions:
    """Which layers get adapters, and of which size.

    Args:
        rank: of the two matrices that are trained for each layer.
        alpha: what they add is multiplied by alpha / rank.
        dropout: before the adapters, in [0, 1).
        layers: regular expression of whole names of layers; null: all linear layers and
            convolutions of one group.

    Raises:
        InputError: a number out of range.
    """

    rank: WholeNumber = 16
    alpha: float = 32.0
    dropout: float = 0.0
    layers: str | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.layers or "")
        except re.error as error:
            raise InputError(f"finetune.layers={self.layers}: {error}") from error
        if self.alpha <= 0:
            raise InputError(f"finetune.alpha must be above 0, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"finetune.dropout must be in [0, 1), got {self.dropout}")


def add_adapters(network: nn.Module, options: AdapterOptions) -> None:
    """Put adapters into a network, in place; only they are trained then.

    Raises:
        InputError: no layer that can have one, or peft is not installed.
    """
    peft = require_package("peft", extra="lora")
    layers = _layers(network, options.layers)
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        # Whole names: of a list peft compares endings.
        target_modules="|".join(map(re.escape, layers)),
        bias="none",
    )
    peft.inject_adapter_in_model(config, network)


def _layers(network: nn.Module, wanted: str | None) -> list[str]:
    """Names of the layers that get an adapter."""
    named = {name: layer for name, layer in network.named_modules() if name}
    if wanted is not None:
        named = {name: layer for name, layer in named.items() if re.fullmatch(wanted, name)}
    fitting = [name for name, layer in named.items() if _takes_adapter(layer)]
    if wanted is not None and len(fitting) < len(named):
        other = next(name for name in named if name not in fitting)
        raise InputError(
            f"finetune.layers={wanted} names {other} ({type(named[other]).__name__}); adapters go "
            "into linear layers and convolutions of one group"
        )
    if not fitting:
        where = f"finetune.layers={wanted}" if wanted else "finetune=lora"
        raise InputError(f"{where}: the network has no such linear layer or convolution")
    return fitting


def _takes_adapter(layer: nn.Module) -> bool:
    """Whether a layer multiplies by its weights as they are.

    Those that standardize them first, as some convolutions of timm do, would do it to what an
    adapter has learned once the two are merged.
    """
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and type(layer).forward is nn.Conv2d.forward
    return isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward


def merge_adapters(network: nn.Module) -> nn.Module:
    """The network with what its adapters learned in its own weights, and without adapters."""
    for name, layer in [*network.named_modules()]:
        if is_adapted(layer):
            layer.merge(safe_merge=True)
            network.set_submodule(name, layer.get_base_layer())
    return network.requires_grad_(True)


def is_adapted(layer: Any) -> bool:
    """Whether this is a layer with an adapter in it."""
    return hasattr(layer, "base_layer") and hasattr(layer, "get_base_layer")
