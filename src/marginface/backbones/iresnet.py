"""insightface's IResNet, with its state-dict keys, so that its .pth files load as they are.

Architecture: ArcFace paper (arXiv 1801.07698) section 3.2.2 and insightface's arcface_torch, where
the numbers below come from: pre-activation BN, stride 1 in the stem, no ReLU after the sum,
output BN1d whose gamma stays 1.
"""

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import (
    build_model_with_cfg,
    checkpoint_seq,
    generate_default_cfgs,
    register_model,
)
from torch import Tensor, nn

from marginface.backbones.input_size import check_input_size, face_cfg, side_of


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


_MAGFACE = {"eps": 2e-5, "momentum": 0.9}  # of its batch normalizations


class IBasicBlock(nn.Module):
    """BN - conv - BN - PReLU - conv(stride) - BN, plus the shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = conv3x3(channels, channels, stride)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


class IResNet(nn.Module):
    """(B, 3, S, S) images to (B, num_classes) embeddings; num_classes is timm's word for it.

    Args:
        layers: blocks per stage.
        num_classes: embedding size.
        img_size: S; the last feature map is S/16 on a side.
        drop_rate: dropout before the last linear layer (0 in insightface's torch recipes).
        magface: as MagFace (arXiv 2103.06627) trains it: batch normalizations with an epsilon of
            2e-5 and a momentum of 0.9, a last gamma that is trained, dropout of whole channels.
    """

    def __init__(
        self,
        layers: Sequence[int] = (3, 4, 14, 3),
        num_classes: int = 512,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 112,
        drop_rate: float = 0.0,
        global_pool: str = "",  # timm passes it; the feature map is flattened, never pooled
        magface: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = 512
        self.grad_checkpointing = False
        self.img_size = side_of(img_size)
        self.conv1 = conv3x3(in_chans, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        self.layer1 = _stage(64, 64, layers[0])
        self.layer2 = _stage(64, 128, layers[1])
        self.layer3 = _stage(128, 256, layers[2])
        self.layer4 = _stage(256, 512, layers[3])
        self.bn2 = nn.BatchNorm2d(512)
        self.dropout = nn.Dropout2d(drop_rate) if magface else nn.Dropout(drop_rate)
        self.fc = nn.Linear(512 * (-(-self.img_size // 16)) ** 2, num_classes)
        self.features = nn.BatchNorm1d(num_classes)
        # Fixed gamma: the head normalizes; a learned gain per dimension would distort angles.
        nn.init.constant_(self.features.weight, 1.0)
        self.features.weight.requires_grad = magface
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)
            elif magface and isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.eps, module.momentum = _MAGFACE["eps"], _MAGFACE["momentum"]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the activations of the blocks again in the backward pass; timm's name for it."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which names belong to which depth; timm's name for it."""
        blocks = r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"
        return {"stem": r"^(?:conv1|bn1|prelu)\.", "blocks": blocks}

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            again = self.grad_checkpointing and self.training
            x = checkpoint_seq(stage, x) if again else stage(x)
        return self.bn2(x)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.img_size, "iresnet")
        x = self.dropout(self.forward_features(x)).flatten(1)
        # The last layer decides the angles; insightface keeps it out of fp16 too.
        with torch.autocast(x.device.type, enabled=False):
            return self.features(self.fc(x.to(self.fc.weight.dtype)))


def _stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    rest = [IBasicBlock(channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(IBasicBlock(in_channels, channels, 2), *rest)


def _create(variant: str, pretrained: bool, usual: tuple[int, ...], **kwargs: Any) -> IResNet:
    return build_model_with_cfg(IResNet, variant, pretrained, **({"layers": usual} | kwargs))


default_cfgs = generate_default_cfgs(
    {
        name: face_cfg(first_conv="conv1", classifier="fc")
        for name in ("iresnet", "iresnet18", "iresnet34", "iresnet50", "iresnet100", "iresnet200")
    }
)


@register_model
def iresnet(pretrained: bool = False, **kwargs: Any) -> IResNet:
    """Of any depth: `layers` says how many blocks each stage has."""
    return _create("iresnet", pretrained, (3, 4, 14, 3), **kwargs)


@register_model
def iresnet18(pretrained: bool = False, **kwargs: Any) -> IResNet:
    return _create("iresnet18", pretrained, (2, 2, 2, 2), **kwargs)


@register_model
def iresnet34(pretrained: bool = False, **kwargs: Any) -> IResNet:
    return _create("iresnet34", pretrained, (3, 4, 6, 3), **kwargs)


@register_model
def iresnet50(pretrained: bool = False, **kwargs: Any) -> IResNet:
    return _create("iresnet50", pretrained, (3, 4, 14, 3), **kwargs)


@register_model
def iresnet100(pretrained: bool = False, **kwargs: Any) -> IResNet:
    return _create("iresnet100", pretrained, (3, 13, 30, 3), **kwargs)


@register_model
def iresnet200(pretrained: bool = False, **kwargs: Any) -> IResNet:
    return _create("iresnet200", pretrained, (6, 26, 60, 6), **kwargs)
