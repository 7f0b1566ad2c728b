"""insightface's MobileFaceNet (mbf), with its state-dict keys.

Another network than that of the paper (arXiv 1804.07573), which `mobilefacenet` is: twice the
width, a second convolution in groups, other expansions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from marginface.backbones.input_size import check_input_size, face_cfg, side_of

# Of each stage: channels inside and behind its block of stride 2, how many residual blocks follow,
# and the channels inside of these.
Stages = Sequence[Sequence[int]]
_MBF: Stages = ((128, 128, 4, 128), (256, 256, 6, 256), (512, 256, 2, 256))


class _Conv(nn.Module):
    """Convolution, batch normalization and, unless linear, PReLU."""

    def __init__(
        self, in_channels: int, channels: int, kernel: int, stride: int = 1, padding: int = 0,
        groups: int = 1, *, linear: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False)
        activation = [] if linear else [nn.PReLU(channels)]
        self.layers = nn.Sequential(conv, nn.BatchNorm2d(channels), *activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _Block(nn.Module):
    """1 x 1 to more channels, 3 x 3 in each of them, 1 x 1 back."""

    def __init__(self, channels: int, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _Conv(channels, inside, 1),
            _Conv(inside, inside, 3, stride, 1, inside),
            _Conv(inside, out, 1, linear=True),
        )
        self.is_residual = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.is_residual else self.layers(x)


class _Residual(nn.Module):
    def __init__(self, channels: int, inside: int, count: int) -> None:
        super().__init__()
        blocks = [_Block(channels, inside, channels, 1) for _ in range(count)]
        self.layers = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _Features(nn.Module):
    """A convolution over the whole map in each channel, a linear layer, a normalization."""

    def __init__(self, channels: int, side: int, embedding_size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _Conv(channels, channels, side, groups=channels, linear=True),
            nn.Flatten(),
            nn.Linear(channels, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class GroupedMobileFaceNet(nn.Module):
    """(B, 3, S, S) images to (B, num_classes) embeddings, not normalized.

    Args:
        stem: channels of the first convolution.
        groups: of the second convolution; 0 where residual blocks stand in its place.
        first: residual blocks there.
        first_inside: their channels inside.
        stages: three of (channels inside and behind a block of stride 2, residual blocks, channels
            inside of these).
        separated: channels of the last 1 x 1 convolution.
        num_classes: embedding size.
        img_size: S.
        drop_rate: dropout before the last linear layer.
    """

    def __init__(
        self,
        stem: int = 128,
        groups: int = 64,
        first: int = 0,
        first_inside: int = 0,
        stages: Stages = _MBF,
        separated: int = 512,
        num_classes: int = 512,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 112,
        drop_rate: float = 0.0,
        global_pool: str = "",  # timm passes it; the convolution over the whole map does it
    ) -> None:
        super().__init__()
        self.num_classes, self.img_size = num_classes, side_of(img_size)
        self.num_features = separated
        second: nn.Module = (
            _Conv(stem, stem, 3, 1, 1, groups) if groups else _Residual(stem, first_inside, first)
        )
        layers: list[nn.Module] = [_Conv(in_chans, stem, 3, 2, 1), second]
        channels = stem
        for inside, out, residual, residual_inside in stages:
            layers.append(_Block(channels, inside, out, 2))
            layers.append(_Residual(out, residual_inside, residual))
            channels = out
        self.layers = nn.ModuleList(layers)
        self.conv_sep = _Conv(channels, separated, 1)
        self.dropout = nn.Dropout(drop_rate)
        self.features = _Features(separated, -(-self.img_size // 16), num_classes)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which names belong to which depth; timm's name for it."""
        # A block of stride 2 and the residual ones behind it are a stage.
        stages = {f"stage{n}": rf"^layers\.(?:{n}|{n + 1})\." for n in (2, 4, 6)}
        return {"stem": r"^layers\.[01]\.", **stages} if coarse else {"layers": r"^layers\.(\d+)"}

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.img_size, "mbf")
        for layer in self.layers:
            x = layer(x)
        x = self.dropout(self.conv_sep(x))
        # The last layer decides the angles; it stays out of reduced precision.
        with torch.autocast(x.device.type, enabled=False):
            return self.features(x.to(next(self.features.parameters()).dtype))


default_cfgs = generate_default_cfgs(
    {"mbf": face_cfg(first_conv="layers.0.layers.0", classifier="features.layers.2")}
)


@register_model
def mbf(pretrained: bool = False, **kwargs: Any) -> GroupedMobileFaceNet:
    return build_model_with_cfg(GroupedMobileFaceNet, "mbf", pretrained, **kwargs)
