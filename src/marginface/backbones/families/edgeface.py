"""EdgeFace: timm's EdgeNeXt, in the gamma variants with linear layers of low rank.

`model.` is a part of its network's names and no prefix of a file.
"""

from typing import Any

from marginface.backbones.edgeface import rank_of
from marginface.backbones.families._family import Family, State

_BY_STEM = {24: "edgenext_xx_small", 32: "edgenext_x_small", 48: "edgenext_small",
            80: "edgenext_base"}  # fmt: skip
_FIRST, _LAST = ".linear1.weight", ".linear2.weight"


def _settings(state: State) -> dict[str, Any] | None:
    stem = state["model.stem.0.weight"].shape[0]
    if stem not in _BY_STEM or not any(".xca." in name for name in state):
        return None
    last = next((n for n in state if n in ("model.head.fc.weight", f"model.head.fc{_LAST}")), None)
    if last is None:
        return None
    return {
        "name": "edgeface",
        "embedding_size": state[last].shape[0],
        "image_size": 112,
        "model": {"timm_name": _BY_STEM[stem], "rank_ratio": _rank_ratio(state)},
    }


def _rank_ratio(state: State) -> float | None:
    """The ratio from which all ranks of a file follow; None where no layer has a low rank."""
    layers = []
    for name in (name for name in state if name.endswith(_FIRST)):
        rank, inputs = state[name].shape
        outputs = state[name.removesuffix(_FIRST) + _LAST].shape[0]
        layers.append((inputs, outputs, rank))
    if not layers:
        return None
    # Ranks are rounded down, so many ratios give them; the published ones have one digit.
    for digits in (1, 2, 3, 4):
        for step in range(1, 10**digits + 1):
            ratio = step / 10**digits
            if all(rank_of(inputs, outputs, ratio) == rank for inputs, outputs, rank in layers):
                return ratio
    raise ValueError("ranks of its linear layers do not follow from one ratio")


EDGEFACE = Family("edgeface", "model.stem.0.weight", _settings)
