"""EdgeFace: timm's EdgeNeXt, in the gamma variants with linear layers of low rank.

`model.` is a part of its network's names and no prefix of a file.
"""

import timm
from torch import Tensor, nn

from marginface.backbones.families._family import Family, State

_BY_STEM = {24: "edgenext_xx_small", 32: "edgenext_x_small", 48: "edgenext_small",
            80: "edgenext_base"}  # fmt: skip
_FIRST, _LAST = ".linear1.weight", ".linear2.weight"


class LowRankLinear(nn.Module):
    """A linear layer as the product of two: linear2(linear1(x))."""

    def __init__(self, inputs: int, rank: int, outputs: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(inputs, rank, bias=False)
        self.linear2 = nn.Linear(rank, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.linear1(x))


class EdgeFace(nn.Module):
    """(B, 3, S, S) images to (B, D) embeddings, not normalized."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.embedding_size = int(model.num_classes)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _network(state: State) -> nn.Module | None:
    stem = state["model.stem.0.weight"].shape[0]
    if stem not in _BY_STEM or not any(".xca." in name for name in state):
        return None
    last = next((n for n in state if n in ("model.head.fc.weight", f"model.head.fc{_LAST}")), None)
    if last is None:
        return None
    network = EdgeFace(timm.create_model(_BY_STEM[stem], num_classes=state[last].shape[0]))
    for name in [name for name in state if name.endswith(_FIRST)]:
        place = name.removesuffix(_FIRST)
        rank, inputs = state[name].shape
        outputs = state[f"{place}{_LAST}"].shape[0]
        network.set_submodule(place, LowRankLinear(inputs, rank, outputs))
    return network


EDGEFACE = Family("edgeface", "model.stem.0.weight", _network)
