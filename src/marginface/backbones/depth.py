"""How deep in a network a parameter is, by timm's grouping of names."""

import re
from typing import Any

from timm.models import group_parameters
from torch import nn

from marginface.backbones.factory import EmbeddingNetwork
from marginface.utils.errors import InputError


def parameter_depths(network: nn.Module, *, coarse: bool) -> dict[str, int]:
    """The number of the part that a parameter is in, from 0, the stem, to the neck.

    Args:
        coarse: parts are stages, or blocks where a network has none (ViTs); else always blocks.

    Raises:
        InputError: a network that does not say how its parts follow each other.
    """
    inner, prefix = (network.model, "model.") if isinstance(network, EmbeddingNetwork) else (
        network, "",
    )  # fmt: skip
    matcher = getattr(inner, "group_matcher", None)
    if matcher is None:
        raise InputError(
            f"{type(inner).__name__} does not say which of its layers follow each other; give it "
            "timm's group_matcher, or use finetune=full or finetune=head_first"
        )
    groups = matcher(coarse=coarse)
    found = group_parameters(inner, groups, reverse=True)
    if prefix:  # what is behind the last stage, such as a last normalization, is of our neck
        found = {name: depth for name, depth in found.items() if _is_grouped(name, groups)}
    depths = {f"{prefix}{name}": depth for name, depth in found.items()}
    neck = max(depths.values(), default=-1) + 1
    return {name: depths.get(name, neck) for name, _ in network.named_parameters()}


def _is_grouped(name: str, groups: Any) -> bool:
    """Whether one of timm's expressions is of this name."""
    if not isinstance(groups, dict):
        return True
    listed = [v if isinstance(v, list | tuple) else [(v, None)] for v in groups.values() if v]
    return any(re.match(expression, name) for found in listed for expression, _ in found)


def part_names(depths: dict[str, int]) -> dict[int, str]:
    """A name for each part: its first module, and its last where they differ."""
    modules: dict[int, list[str]] = {}
    for name, depth in depths.items():
        pieces = name.removeprefix("model.").split(".")
        numbered = len(pieces) > 2 and pieces[1].isdigit()
        modules.setdefault(depth, []).append(".".join(pieces[: 2 if numbered else 1]))
    return {
        depth: found[0] if found[0] == found[-1] else f"{found[0]} to {found[-1]}"
        for depth, found in sorted(modules.items())
    }
