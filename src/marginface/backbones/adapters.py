"""Low-rank adapters (LoRA, arXiv 2106.09685) in a network, by the library peft."""

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
        if self.alpha <= 0:
            raise InputError(f"finetune.alpha must be above 0, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"finetune.dropout must be in [0, 1), got {self.dropout}")


def add_adapters(network: nn.Module, options: AdapterOptions) -> None:
    """Put adapters into a network, in place; only they are trained then.

    Raises:
        InputError: no layer has such a name, or peft is not installed.
    """
    peft = require_package("peft", extra="lora")
    layers = options.layers or _usual_layers(network)
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=layers,
        bias="none",
    )
    try:
        peft.inject_adapter_in_model(config, network)
    except ValueError as error:
        raise InputError(f"finetune.layers={options.layers}: {error}") from error


def _usual_layers(network: nn.Module) -> list[str]:
    found = [
        name
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    ]
    if not found:
        raise InputError("finetune=lora: the network has no linear layer and no convolution")
    return found


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
