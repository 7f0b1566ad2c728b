"""The IR networks: AdaFace and CVLface (one architecture), face.evoLVe and CurricularFace.

AdaFace's take blue first. CVLface's are the same networks retrained, and take what the
configuration beside their file says.
"""

from typing import Any

from marginface.backbones.families._family import Family, State, counted

_ANCHOR = "input_layer.0.weight"
_OF_CVLFACE = ("model.net.", "net.")
_WIDTHS = (64, 128, 256, 512)
_DROPOUT = 0.4


def _settings(state: State, *, middle_norm: bool) -> dict[str, Any] | None:
    if ("body.0.res_layer.2.running_mean" in state) != middle_norm:
        return None
    if "output_layer.3.weight" not in state:
        return None
    count = counted(state, "body.{n}.res_layer.1.weight")
    widths = [state[f"body.{n}.res_layer.1.weight"].shape[0] for n in range(count)]
    blocks = [widths.count(width) for width in _WIDTHS]
    if not all(blocks) or sum(blocks) != count:
        return None
    squeeze = "body.0.res_layer.se_block.fc1.weight", "body.0.res_layer.5.fc1.weight"
    linear = state["output_layer.3.weight"]
    return {
        "name": "ir",
        "embedding_size": linear.shape[0],
        "image_size": 16 * round((linear.shape[1] / 512) ** 0.5),
        "model": {
            "blocks": blocks,
            "middle_norm": middle_norm,
            "affine": "output_layer.4.weight" in state,
            "squeeze": any(name in state for name in squeeze),
        },
    }


def _adaface(state: State) -> dict[str, Any] | None:
    return _settings(state, middle_norm=True)


def _plain(state: State) -> dict[str, Any] | None:
    return _settings(state, middle_norm=False)


def _evolve(state: State) -> dict[str, Any] | None:
    return _plain(state) if "output_layer.4.weight" in state else None


def _curricularface(state: State) -> dict[str, Any] | None:
    return _plain(state) if "output_layer.4.weight" not in state else None


ADAFACE = Family(
    "adaface",
    _ANCHOR,
    _adaface,
    color="bgr",
    dropout=_DROPOUT,
    accepts=lambda prefix: prefix not in _OF_CVLFACE,
    nested=("state_dict",),
)
CVLFACE_IR = Family(
    "cvlface",
    _ANCHOR,
    _adaface,
    dropout=_DROPOUT,
    accepts=lambda prefix: prefix in _OF_CVLFACE,
)
EVOLVE = Family("evolve", _ANCHOR, _evolve, dropout=_DROPOUT)
CURRICULARFACE = Family("curricularface", _ANCHOR, _curricularface, dropout=_DROPOUT)
