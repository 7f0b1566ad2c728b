"""insightface's IResNet; MagFace's, which has the same names and shapes, and other images.

Nothing in the tensors tells the two apart, only the name they are stored under: MagFace's trainers
save `features.module.` (several processes), `module.features.` (several devices) or `features.`.
"""

from torch import nn

from marginface.backbones.families._family import Family, State, counted
from marginface.backbones.iresnet import IResNet

_ANCHOR = "layer1.0.bn1.weight"
_OF_MAGFACE = ("features.module.", "module.features.", "features.")
_OF_CVLFACE = ("model.net.", "net.")
_MAGFACE_EPS = 2e-5  # of its batch normalizations


def _network(state: State) -> nn.Module | None:
    if "features.weight" not in state or "fc.weight" not in state:
        return None
    stages = [counted(state, f"layer{stage}.{{n}}.bn1.weight") for stage in (1, 2, 3, 4)]
    side = round((state["fc.weight"].shape[1] / 512) ** 0.5)
    return IResNet(
        (stages[0], stages[1], stages[2], stages[3]),
        num_classes=state["fc.weight"].shape[0],
        img_size=16 * side,
    )


def _magface(state: State) -> nn.Module | None:
    network = _network(state)
    for module in network.modules() if network is not None else ():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eps = _MAGFACE_EPS
    return network


INSIGHTFACE = Family(
    "insightface",
    _ANCHOR,
    _network,
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
    accepts=lambda prefix: prefix in _OF_MAGFACE,
    nested=("state_dict",),
)
CVLFACE_IRESNET = Family("cvlface", _ANCHOR, _network, accepts=lambda prefix: prefix in _OF_CVLFACE)
