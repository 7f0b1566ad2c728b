"""The IR networks: AdaFace and CVLface (one architecture), face.evoLVe and CurricularFace.

AdaFace's take blue first. CVLface's are the same networks retrained, and take what the
configuration beside their file says.
"""

from torch import nn

from marginface.backbones.families._family import Family, State, counted
from marginface.backbones.ir import IRNet, IRShape

_ANCHOR = "input_layer.0.weight"
_OF_CVLFACE = ("model.net.", "net.")
_WIDTHS = (64, 128, 256, 512)


def _network(state: State, *, middle_norm: bool) -> nn.Module | None:
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
    shape = IRShape(
        (blocks[0], blocks[1], blocks[2], blocks[3]),
        middle_norm=middle_norm,
        affine="output_layer.4.weight" in state,
        squeeze=any(name in state for name in squeeze),
        embedding_size=linear.shape[0],
        image_size=16 * round((linear.shape[1] / 512) ** 0.5),
    )
    return IRNet(shape)


def _adaface(state: State) -> nn.Module | None:
    return _network(state, middle_norm=True)


def _plain(state: State) -> nn.Module | None:
    return _network(state, middle_norm=False)


def _evolve(state: State) -> nn.Module | None:
    return _plain(state) if "output_layer.4.weight" in state else None


def _curricularface(state: State) -> nn.Module | None:
    return _plain(state) if "output_layer.4.weight" not in state else None


ADAFACE = Family(
    "adaface",
    _ANCHOR,
    _adaface,
    color="bgr",
    accepts=lambda prefix: prefix not in _OF_CVLFACE,
    nested=("state_dict",),
)
CVLFACE_IR = Family("cvlface", _ANCHOR, _adaface, accepts=lambda prefix: prefix in _OF_CVLFACE)
EVOLVE = Family("evolve", _ANCHOR, _evolve)
CURRICULARFACE = Family("curricularface", _ANCHOR, _curricularface)
