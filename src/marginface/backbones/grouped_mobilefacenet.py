"""insightface's MobileFaceNet (mbf), with its state-dict keys.

Another network than that of the paper (arXiv 1804.07573), which `mobilefacenet` is: twice the
width, a second convolution in groups, other expansions.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from marginface.backbones.input_size import check_input_size


class Stage(NamedTuple):
    """A block of stride 2, then residual blocks; channels inside and behind."""

    inside: int
    out: int
    residual: int
    residual_inside: int


class MbfShape(NamedTuple):
    """Widths and numbers of blocks.

    Attributes:
        stem: channels of the first convolution.
        groups: of the second convolution; 0 where residual blocks stand in its place.
        first: residual blocks there.
        first_inside: their channels inside.
        stages: three of them.
        separated: channels of the last 1 x 1 convolution.
        embedding_size: D.
        image_size: S.
    """

    stem: int
    groups: int
    first: int
    first_inside: int
    stages: tuple[Stage, Stage, Stage]
    separated: int = 512
    embedding_size: int = 512
    image_size: int = 112


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
    """(B, 3, S, S) images to (B, D) embeddings, not normalized."""

    def __init__(self, shape: MbfShape) -> None:
        super().__init__()
        self.image_size, self.embedding_size = shape.image_size, shape.embedding_size
        second: nn.Module = (
            _Conv(shape.stem, shape.stem, 3, 1, 1, shape.groups)
            if shape.groups
            else _Residual(shape.stem, shape.first_inside, shape.first)
        )
        layers: list[nn.Module] = [_Conv(3, shape.stem, 3, 2, 1), second]
        layers += _stages(shape.stem, shape.stages)
        self.layers = nn.ModuleList(layers)
        self.conv_sep = _Conv(shape.stages[-1].out, shape.separated, 1)
        side = -(-shape.image_size // 16)
        self.features = _Features(shape.separated, side, shape.embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.image_size, "mbf")
        for layer in self.layers:
            x = layer(x)
        x = self.conv_sep(x)
        # The last layer decides the angles; it stays out of reduced precision.
        with torch.autocast(x.device.type, enabled=False):
            return self.features(x.to(next(self.features.parameters()).dtype))


def _stages(channels: int, stages: Sequence[Stage]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for stage in stages:
        layers.append(_Block(channels, stage.inside, stage.out, 2))
        layers.append(_Residual(stage.out, stage.residual_inside, stage.residual))
        channels = stage.out
    return layers
