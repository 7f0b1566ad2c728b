"""Networks of timm on the Hugging Face Hub: `backbone.name=hf_hub:owner/model`."""

from typing import Any, NamedTuple

from timm.models import load_model_config_from_hf

from marginface.utils.errors import InputError, first_line

PREFIX = "hf_hub:"  # timm's


class HubModel(NamedTuple):
    """What the Hub says of a network: timm's name, its arguments, and its images in 0 to 255."""

    architecture: str
    arguments: dict[str, Any]
    mean: list[float]
    std: list[float]


def is_on_hub(name: str) -> bool:
    """Whether this is a name on the Hub."""
    return name.startswith(PREFIX)


def hub_model(name: str) -> HubModel:
    """What the config.json of a network on the Hub says; from the cache where there is no network.

    Raises:
        InputError: it can neither be reached nor is in the cache, or is no network of timm.
    """
    try:
        about, architecture, arguments = load_model_config_from_hf(name.removeprefix(PREFIX))
        if architecture is None:
            raise ValueError("its config.json names no architecture")
    except Exception as error:  # the Hub's client has exception types of its own
        raise InputError(unreachable(name, error)) from error
    half = (0.5, 0.5, 0.5)
    mean, std = ([255 * v for v in about.get(key) or half] for key in ("mean", "std"))
    return HubModel(architecture, arguments or {}, mean, std)


def unreachable(name: str, error: Exception) -> str:
    """Why a network of the Hub cannot be had."""
    return (
        f"backbone.name={name} can neither be reached nor is in the local cache: "
        f"{first_line(error) or type(error).__name__}. Check owner/model and the network; on a "
        "machine without one, fetch it on another and copy the cache (HF_HOME)"
    )
