"""Small residual networks for training on a CPU in minutes.

Basic blocks (He et al., arXiv 1512.03385) behind a 3x3 stem of stride 2, average-pooled shortcuts,
then BN - dropout - flatten - linear - BN as in insightface's networks. 112 pixels leave a 7x7 map,
or a 4x4 map of maxima. They learn fast; measured on real faces in docs/results.md.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from marginface.backbones.input_size import check_input_size, face_cfg, side_of


class BasicBlock(nn.Module):
    """conv(stride) - BN - ReLU - conv - BN, plus the shortcut, ReLU."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True),
                nn.Conv2d(in_channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))


class MiniResNet(nn.Module):
    """(B, 3, S, S) images to (B, num_classes) embeddings.

    Args:
        channels: width of the stages; each halves the side, and the stem has done so before.
        blocks: basic blocks of each stage.
        stem: width of the stem.
        max_pool: halve the last map by maxima over 3x3, so that features count wherever they are.
        num_classes: embedding size.
        img_size: S.
        drop_rate: dropout before the last linear layer.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        blocks: tuple[int, ...],
        stem: int,
        max_pool: bool = False,
        num_classes: int = 512,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 112,
        drop_rate: float = 0.0,
        global_pool: str = "",  # timm passes it; the feature map is flattened, never pooled
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = channels[-1]
        self.img_size = side_of(img_size)
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU(True)
        )
        stages: list[nn.Module] = []
        width, side = stem, -(-self.img_size // 2)
        for stage_width, repeats in zip(channels, blocks, strict=True):
            for i in range(repeats):
                stages.append(BasicBlock(width, stage_width, 2 if i == 0 else 1))
                width = stage_width
            side = -(-side // 2)
        if max_pool:
            stages.append(nn.MaxPool2d(3, 2, 1))
            side = -(-side // 2)
        self.stages = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(width * side**2, num_classes)
        self.norm = nn.BatchNorm1d(num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which names belong to which depth; timm's name for it."""
        return {"stem": r"^stem", "stages": r"^stages\.(\d+)"}

    def forward_features(self, x: Tensor) -> Tensor:
        return self.bn(self.stages(self.stem(x)))

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.img_size, "miniresnet")
        features = self.dropout(self.forward_features(x)).flatten(1)
        return self.norm(self.fc(features).to(self.norm.weight.dtype))


def _create(variant: str, pretrained: bool, **kwargs: Any) -> MiniResNet:
    return build_model_with_cfg(MiniResNet, variant, pretrained, **kwargs)


default_cfgs = generate_default_cfgs(
    {
        name: face_cfg(first_conv="stem.0", classifier="fc")
        for name in ("miniresnet8", "miniresnet8_half", "miniresnet8_pool")
    }
)


@register_model
def miniresnet8(pretrained: bool = False, **kwargs: Any) -> MiniResNet:
    shape = {"channels": (64, 128, 256), "blocks": (1, 1, 1), "stem": 64}
    return _create("miniresnet8", pretrained, **shape, **kwargs)


@register_model
def miniresnet8_half(pretrained: bool = False, **kwargs: Any) -> MiniResNet:
    shape = {"channels": (32, 64, 128), "blocks": (1, 1, 1), "stem": 32}
    return _create("miniresnet8_half", pretrained, **shape, **kwargs)


@register_model
def miniresnet8_pool(pretrained: bool = False, **kwargs: Any) -> MiniResNet:
    shape = {"channels": (64, 128, 256), "blocks": (1, 1, 1), "stem": 32, "max_pool": True}
    return _create("miniresnet8_pool", pretrained, **shape, **kwargs)
