"""The IR networks of face.evoLVe, CurricularFace and AdaFace, with their state-dict keys.

A residual network like insightface's (ArcFace paper, arXiv 1801.07698, section 3.2.2) that differs
where training notices: the shortcut subsamples where the width stays, and the last normalization
may have no gamma and beta. face.evoLVe's has no normalization between convolution and PReLU.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from marginface.backbones.input_size import check_input_size

REDUCTION = 16  # of squeeze and excitation


class IRShape(NamedTuple):
    """What tells the IR networks apart.

    Attributes:
        blocks: of each stage of 64, 128, 256 and 512 channels.
        middle_norm: whether there is a normalization between convolution and PReLU (AdaFace).
        affine: whether the last normalization has gamma and beta (face.evoLVe).
        squeeze: whether blocks end in squeeze and excitation.
        embedding_size: D.
        image_size: S.
    """

    blocks: tuple[int, int, int, int]
    middle_norm: bool = True
    affine: bool = False
    squeeze: bool = False
    embedding_size: int = 512
    image_size: int = 112


class SqueezeExcitation(nn.Module):
    """Channels weighed by what their means say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return x * weights


class IRBlock(nn.Module):
    """BN - conv - [BN] - PReLU - conv(stride) - BN [- SE], plus the shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int, shape: IRShape) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut_layer: nn.Module | None = None
        if in_channels != channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        middle = [nn.BatchNorm2d(channels)] if shape.middle_norm else []
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            *middle,
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        if shape.squeeze:
            # The only difference in names: AdaFace calls it, face.evoLVe counts it.
            name = "se_block" if shape.middle_norm else str(len(self.res_layer))
            self.res_layer.add_module(name, SqueezeExcitation(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut_layer is None:
            shortcut = x[:, :, :: self.stride, :: self.stride]
        else:
            shortcut = self.shortcut_layer(x)
        return self.res_layer(x) + shortcut


class IRNet(nn.Module):
    """(B, 3, S, S) images to (B, D) embeddings, not normalized.

    Args:
        shape: of the network.
        dropout: before the last linear layer; 0.4 in the official recipes.
    """

    def __init__(self, shape: IRShape, dropout: float = 0.4) -> None:
        super().__init__()
        self.image_size, self.embedding_size = shape.image_size, shape.embedding_size
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        self.body = nn.Sequential(*_blocks(shape))
        side = -(-shape.image_size // 16)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(512 * side**2, shape.embedding_size),
            nn.BatchNorm1d(shape.embedding_size, affine=shape.affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.image_size, "ir")
        x = self.body(self.input_layer(x))
        # The last layer decides the angles; it stays out of reduced precision.
        with torch.autocast(x.device.type, enabled=False):
            return self.output_layer(x.to(next(self.output_layer.parameters()).dtype))


def _blocks(shape: IRShape) -> Sequence[IRBlock]:
    found, before = [], 64
    for channels, count in zip((64, 128, 256, 512), shape.blocks, strict=True):
        for number in range(count):
            found.append(IRBlock(before, channels, 2 if number == 0 else 1, shape))
            before = channels
    return found
