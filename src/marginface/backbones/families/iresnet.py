"""insightface's IResNet; MagFace's, which has the same names and shapes, and other images.

Nothing in the tensors tells the two apart, only the name they are stored under: MagFace's trainers
save `features.module.` (several processes), `module.features.` (several devices) or `features.`.
"""

from typing import Any

from marginface.backbones.families._family import Family, State, counted

_ANCHOR = "layer1.0.bn1.weight"
_OF_MAGFACE = ("features.module.", "module.features.", "features.")
_OF_CVLFACE = ("model.net.", "net.")
_BLOCKS = {
    "iresnet18": [2, 2, 2, 2],
    "iresnet34": [3, 4, 6, 3],
    "iresnet50": [3, 4, 14, 3],
    "iresnet100": [3, 13, 30, 3],
    "iresnet200": [6, 26, 60, 6],
}


def _settings(state: State) -> dict[str, Any] | None:
    if "features.weight" not in state or "fc.weight" not in state:
        return None
    blocks = [counted(state, f"layer{stage}.{{n}}.bn1.weight") for stage in (1, 2, 3, 4)]
    name = next((name for name, known in _BLOCKS.items() if known == blocks), None)
    return {
        "name": name or "iresnet",
        "embedding_size": state["fc.weight"].shape[0],
        "image_size": 16 * round((state["fc.weight"].shape[1] / 512) ** 0.5),
        "model": {} if name else {"layers": blocks},
    }


def _magface(state: State) -> dict[str, Any] | None:
    found = _settings(state)
    if found is not None:
        found["model"]["magface"] = True
    return found


INSIGHTFACE = Family(
    "insightface",
    _ANCHOR,
    _settings,
    accepts=lambda prefix: prefix not in (*_OF_MAGFACE, *_OF_CVLFACE),
    nested=("state_dict_backbone",),
)
MAGFACE = Family(
    "magface",
    _ANCHOR,
    _magface,
    color="bgr",
    mean=(0.0, 0.0, 0.0),
    std=(255.0, 255.0, 255.0),
    dropout=0.4,
    accepts=lambda prefix: prefix in _OF_MAGFACE,
    nested=("state_dict",),
)
CVLFACE_IRESNET = Family(
    "cvlface", _ANCHOR, _settings, accepts=lambda prefix: prefix in _OF_CVLFACE
)
