"""facenet's Inception-ResNet v1 (Szegedy et al., arXiv 1602.07261), with facenet-pytorch's keys.

The residual branches are scaled by 0.17, 0.10 and 0.20, normalizations have an epsilon of 1e-3, and
the embedding is an average over all positions: it takes any size from 75 pixels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from marginface.backbones.input_size import face_cfg

_EPS = 1e-3


class _Conv(nn.Module):
    def __init__(
        self, in_channels: int, channels: int, kernel: int | tuple[int, int], stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class _ResidualBranches(nn.Module):
    """Branches beside each other, joined by a 1 x 1 convolution, scaled and added."""

    def __init__(
        self, channels: int, branches: Sequence[nn.Module], joined: int, scale: float,
        *, linear: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.count, self.scale, self.linear = len(branches), scale, linear
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)
        self.conv2d = nn.Conv2d(joined, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.get_submodule(f"branch{n}")(x) for n in range(self.count)]
        x = x + self.scale * self.conv2d(torch.cat(parts, 1))
        return x if self.linear else x.relu()


class _Reduction(nn.Module):
    """Branches of stride 2 and a maximum, beside each other."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.count = len(branches)
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.get_submodule(f"branch{n}")(x) for n in range(self.count)]
        return torch.cat([*parts, self.pool(x)], 1)


def _block35() -> nn.Module:
    branches = [
        _Conv(256, 32, 1),
        nn.Sequential(_Conv(256, 32, 1), _Conv(32, 32, 3, padding=1)),
        nn.Sequential(_Conv(256, 32, 1), _Conv(32, 32, 3, padding=1), _Conv(32, 32, 3, padding=1)),
    ]
    return _ResidualBranches(256, branches, 96, 0.17)


def _block17() -> nn.Module:
    line = nn.Sequential(
        _Conv(896, 128, 1),
        _Conv(128, 128, (1, 7), padding=(0, 3)),
        _Conv(128, 128, (7, 1), padding=(3, 0)),
    )
    return _ResidualBranches(896, [_Conv(896, 128, 1), line], 256, 0.10)


def _block8(scale: float = 0.20, *, linear: bool = False) -> nn.Module:
    line = nn.Sequential(
        _Conv(1792, 192, 1),
        _Conv(192, 192, (1, 3), padding=(0, 1)),
        _Conv(192, 192, (3, 1), padding=(1, 0)),
    )
    return _ResidualBranches(1792, [_Conv(1792, 192, 1), line], 384, scale, linear=linear)


class InceptionResnetV1(nn.Module):
    """(B, 3, S, S) images to (B, num_classes) embeddings, not normalized; S is 160 in its training.

    Args:
        num_classes: embedding size.
        drop_rate: dropout before the last linear layer.
    """

    def __init__(
        self,
        num_classes: int = 512,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",  # timm passes it; there is no other
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = 1792
        self.conv2d_1a = _Conv(in_chans, 32, 3, 2)
        self.conv2d_2a = _Conv(32, 32, 3)
        self.conv2d_2b = _Conv(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = _Conv(64, 80, 1)
        self.conv2d_4a = _Conv(80, 192, 3)
        self.conv2d_4b = _Conv(192, 256, 3, 2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = _Reduction(
            [
                _Conv(256, 384, 3, 2),
                nn.Sequential(
                    _Conv(256, 192, 1), _Conv(192, 192, 3, padding=1), _Conv(192, 256, 3, 2)
                ),
            ]
        )
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = _Reduction(
            [
                nn.Sequential(_Conv(896, 256, 1), _Conv(256, 384, 3, 2)),
                nn.Sequential(_Conv(896, 256, 1), _Conv(256, 256, 3, 2)),
                nn.Sequential(
                    _Conv(896, 256, 1), _Conv(256, 256, 3, padding=1), _Conv(256, 256, 3, 2)
                ),
            ]
        )
        self.repeat_3 = nn.Sequential(*(_block8() for _ in range(5)))
        self.block8 = _block8(1.0, linear=True)
        self.dropout = nn.Dropout(drop_rate)
        self.last_linear = nn.Linear(1792, num_classes, bias=False)
        self.last_bn = nn.BatchNorm1d(num_classes, eps=_EPS)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which names belong to which depth; timm's name for it."""
        blocks = "" if coarse else r"\.(\d+)"
        return {
            "stem": r"^conv2d_",
            "repeat_1": rf"^repeat_1{blocks}",
            "mixed_6a": r"^mixed_6a",
            "repeat_2": rf"^repeat_2{blocks}",
            "mixed_7a": r"^mixed_7a",
            "repeat_3": rf"^repeat_3{blocks}",
            "block8": r"^block8",
        }

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x))))
        x = self.mixed_6a(self.repeat_1(x))
        x = self.mixed_7a(self.repeat_2(x))
        x = self.block8(self.repeat_3(x))
        x = self.dropout(x.mean((2, 3)))
        # The last layer decides the angles; it stays out of reduced precision.
        with torch.autocast(x.device.type, enabled=False):
            return self.last_bn(self.last_linear(x.to(self.last_linear.weight.dtype)))


# It averages over all positions, so it is not built for one size.
default_cfgs = generate_default_cfgs(
    {
        "inception_resnet_v1": face_cfg(
            first_conv="conv2d_1a.conv",
            classifier="last_linear",
            input_size=(3, 160, 160),
            fixed_input_size=False,
        )
    }
)


@register_model
def inception_resnet_v1(pretrained: bool = False, **kwargs: Any) -> InceptionResnetV1:
    return build_model_with_cfg(InceptionResnetV1, "inception_resnet_v1", pretrained, **kwargs)
