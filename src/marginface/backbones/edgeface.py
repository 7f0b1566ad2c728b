"""EdgeFace: timm's EdgeNeXt whose classifier is the embedding, with its state-dict keys.

George et al., arXiv 2307.01838. In the gamma variants every linear layer is a product of two.
"""

from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from marginface.backbones.input_size import face_cfg


class LowRankLinear(nn.Module):
    """A linear layer as the product of two: linear2(linear1(x))."""

    def __init__(self, inputs: int, rank: int, outputs: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(inputs, rank, bias=False)
        self.linear2 = nn.Linear(rank, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.linear1(x))


def rank_of(inputs: int, outputs: int, ratio: float) -> int:
    """The rank that the gamma variants give a layer."""
    return max(2, int(min(inputs, outputs) * ratio))


class EdgeFace(nn.Module):
    """(B, 3, S, S) images to (B, num_classes) embeddings, not normalized.

    Args:
        timm_name: of timm's networks, such as "edgenext_x_small".
        rank_ratio: of the rank of linear layers to their narrower side; None for whole ones.
        num_classes: embedding size.
        drop_rate: dropout before the last layer.
        drop_path_rate: stochastic depth, rising to this in the last block.
    """

    def __init__(
        self,
        timm_name: str = "edgenext_x_small",
        rank_ratio: float | None = None,
        num_classes: int = 512,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",  # timm passes it; there is no other
    ) -> None:
        super().__init__()
        self.model: Any = timm.create_model(
            timm_name, num_classes=num_classes, in_chans=in_chans, drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
        )  # fmt: skip
        self.num_classes = num_classes
        self.num_features = self.model.num_features
        if rank_ratio is not None:
            for name, layer in [*self.model.named_modules()]:
                if isinstance(layer, nn.Linear):
                    inputs, outputs = layer.in_features, layer.out_features
                    low = LowRankLinear(inputs, rank_of(inputs, outputs, rank_ratio), outputs)
                    self.model.set_submodule(name, low)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the activations of the blocks again in the backward pass; timm's name for it."""
        self.model.set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which names belong to which depth; timm's name for it."""
        blocks = r"^model\.stages\.(\d+)"
        if coarse:
            return {"stem": r"^model\.stem", "stages": blocks}
        within = [(blocks + r"\.downsample", (0,)), (blocks + r"\.blocks\.(\d+)", None)]
        return {"stem": r"^model\.stem", "stages": within}

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


# Any size will do: it averages over all positions.
default_cfgs = generate_default_cfgs(
    {
        "edgeface": face_cfg(
            first_conv="model.stem.0", classifier="model.head.fc", fixed_input_size=False
        )
    }
)


@register_model
def edgeface(pretrained: bool = False, **kwargs: Any) -> EdgeFace:
    return build_model_with_cfg(EdgeFace, "edgeface", pretrained, **kwargs)
