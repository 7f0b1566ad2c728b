"""insightface's MobileFaceNets: mbf and mbf_large."""

from torch import nn

from marginface.backbones.families._family import Family, State, counted
from marginface.backbones.grouped_mobilefacenet import GroupedMobileFaceNet, MbfShape, Stage

_GROUPED = "layers.1.layers.0.weight"  # of mbf; mbf_large has residual blocks there


def _network(state: State) -> nn.Module | None:
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
            Stage(
                inside=state[f"layers.{place}.layers.0.layers.0.weight"].shape[0],
                out=state[f"layers.{place}.layers.2.layers.0.weight"].shape[0],
                residual=counted(state, residual),
                residual_inside=state[residual.format(n=0)].shape[0],
            )
        )
    separated, _, side, _ = state["features.layers.0.layers.0.weight"].shape
    return GroupedMobileFaceNet(
        MbfShape(
            stem, groups, first, inside, (stages[0], stages[1], stages[2]), separated,
            embedding_size=state["features.layers.2.weight"].shape[0], image_size=16 * side,
        )
    )  # fmt: skip


MBF = Family("insightface", "layers.0.layers.0.weight", _network, nested=("state_dict_backbone",))
