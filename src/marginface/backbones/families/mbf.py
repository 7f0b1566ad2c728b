"""insightface's MobileFaceNets: mbf and mbf_large."""

from typing import Any

from marginface.backbones.families._family import Family, State, counted

_GROUPED = "layers.1.layers.0.weight"  # of mbf; mbf_large has residual blocks there


def _settings(state: State) -> dict[str, Any] | None:
    if "conv_sep.layers.0.weight" not in state or "features.layers.2.weight" not in state:
        return None
    stem = state["layers.0.layers.0.weight"].shape[0]
    if _GROUPED in state:
        groups, first, inside = stem // state[_GROUPED].shape[1], 0, 0
    else:
        groups, first = 0, counted(state, "layers.1.layers.{n}.layers.0.layers.0.weight")
        inside = state["layers.1.layers.0.layers.0.layers.0.weight"].shape[0]
    stages = []
    for place in (2, 4, 6):
        residual = f"layers.{place + 1}.layers.{{n}}.layers.0.layers.0.weight"
        stages.append(
            [
                state[f"layers.{place}.layers.0.layers.0.weight"].shape[0],
                state[f"layers.{place}.layers.2.layers.0.weight"].shape[0],
                counted(state, residual),
                state[residual.format(n=0)].shape[0],
            ]
        )
    separated, _, side, _ = state["features.layers.0.layers.0.weight"].shape
    return {
        "name": "mbf",
        "embedding_size": state["features.layers.2.weight"].shape[0],
        "image_size": 16 * side,
        "model": {
            "stem": stem,
            "groups": groups,
            "first": first,
            "first_inside": inside,
            "stages": stages,
            "separated": separated,
        },
    }


MBF = Family("insightface", "layers.0.layers.0.weight", _settings, nested=("state_dict_backbone",))
