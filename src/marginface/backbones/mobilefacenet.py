"""MobileFaceNet: Chen et al., arXiv 1804.07573, table 1."""

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from marginface.backbones.input_size import check_input_size, face_cfg, side_of

# expansion t, channels c, repeats n, stride s of the first repeat
BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


class ConvNorm(nn.Sequential):
    """Convolution, BN and, unless `linear`, a PReLU per channel."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int = 1,
        stride: int = 1,
        padding: int = 0,
        *,
        depthwise: bool = False,
        linear: bool = False,
    ) -> None:
        groups = in_channels if depthwise else 1
        conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(channels))
        if not linear:
            self.append(nn.PReLU(channels))


class Bottleneck(nn.Module):
    """Inverted residual: expand, depthwise 3x3, project without activation."""

    def __init__(self, in_channels: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = in_channels * expansion
        self.layers = nn.Sequential(
            ConvNorm(in_channels, width),
            ConvNorm(width, width, 3, stride, 1, depthwise=True),
            ConvNorm(width, channels, linear=True),
        )
        self.has_shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.has_shortcut else y


class MobileFaceNet(nn.Module):
    """(B, 3, S, S) images to (B, num_classes) embeddings through a global depthwise convolution."""

    def __init__(
        self,
        num_classes: int = 512,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 112,
        drop_rate: float = 0.0,
        global_pool: str = "",  # timm passes it; the global depthwise convolution does the pooling
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = 512
        self.img_size = side_of(img_size)
        blocks: list[nn.Module] = []
        channels = 64
        for expansion, out_channels, repeats, stride in BOTTLENECKS:
            for i in range(repeats):
                blocks.append(
                    Bottleneck(channels, out_channels, expansion, stride if i == 0 else 1)
                )
                channels = out_channels
        self.stem = nn.Sequential(
            ConvNorm(in_chans, 64, 3, 2, 1), ConvNorm(64, 64, 3, 1, 1, depthwise=True)
        )
        self.blocks = nn.Sequential(*blocks)
        self.expand = ConvNorm(channels, 512)
        self.global_depthwise = ConvNorm(
            512, 512, -(-self.img_size // 16), depthwise=True, linear=True
        )
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(512, num_classes, bias=False)
        self.norm = nn.BatchNorm1d(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which names belong to which depth; timm's name for it."""
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}

    def forward_features(self, x: Tensor) -> Tensor:
        return self.expand(self.blocks(self.stem(x)))

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.img_size, "mobilefacenet")
        x = self.dropout(self.global_depthwise(self.forward_features(x)).flatten(1))
        with torch.autocast(x.device.type, enabled=False):
            return self.norm(self.fc(x.to(self.fc.weight.dtype)))


default_cfgs = generate_default_cfgs(
    {"mobilefacenet": face_cfg(first_conv="stem.0.0", classifier="fc")}
)


@register_model
def mobilefacenet(pretrained: bool = False, **kwargs: Any) -> MobileFaceNet:
    return build_model_with_cfg(MobileFaceNet, "mobilefacenet", pretrained, **kwargs)
