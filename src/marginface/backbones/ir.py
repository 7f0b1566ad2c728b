"""The IR networks of face.evoLVe, CurricularFace and AdaFace, with their state-dict keys.

A residual network like insightface's (ArcFace paper, arXiv 1801.07698, section 3.2.2) that differs
where training notices: the shortcut subsamples where the width stays, and the last normalization
may have no gamma and beta. face.evoLVe's has no normalization between convolution and PReLU.
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

REDUCTION = 16  # of squeeze and excitation


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

    def __init__(
        self, in_channels: int, channels: int, stride: int, *, middle_norm: bool, squeeze: bool
    ) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut_layer: nn.Module | None = None
        if in_channels != channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        middle = [nn.BatchNorm2d(channels)] if middle_norm else []
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            *middle,
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        if squeeze:
            # The only difference in names: AdaFace calls it, face.evoLVe counts it.
            name = "se_block" if middle_norm else str(len(self.res_layer))
            self.res_layer.add_module(name, SqueezeExcitation(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.shortcut_layer is None:
            shortcut = x[:, :, :: self.stride, :: self.stride]
        else:
            shortcut = self.shortcut_layer(x)
        return self.res_layer(x) + shortcut


class IRNet(nn.Module):
    """(B, 3, S, S) images to (B, num_classes) embeddings, not normalized.

    Args:
        blocks: of each stage of 64, 128, 256 and 512 channels.
        middle_norm: whether there is a normalization between convolution and PReLU (AdaFace).
        affine: whether the last normalization has gamma and beta (face.evoLVe).
        squeeze: whether blocks end in squeeze and excitation.
        num_classes: embedding size.
        img_size: S.
        drop_rate: dropout before the last linear layer; 0.4 in the official recipes.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (3, 4, 14, 3),
        middle_norm: bool = True,
        affine: bool = False,
        squeeze: bool = False,
        num_classes: int = 512,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = 112,
        drop_rate: float = 0.0,
        global_pool: str = "",  # timm passes it; the feature map is flattened, never pooled
    ) -> None:
        super().__init__()
        self.num_classes, self.blocks = num_classes, tuple(blocks)
        self.num_features = 512
        self.grad_checkpointing = False
        self.img_size = side_of(img_size)
        self.input_layer = nn.Sequential(
            nn.Conv2d(in_chans, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        stages, before = [], 64
        for channels, count in zip((64, 128, 256, 512), blocks, strict=True):
            for number in range(count):
                stride = 2 if number == 0 else 1
                block = IRBlock(before, channels, stride, middle_norm=middle_norm, squeeze=squeeze)
                stages.append(block)
                before = channels
        self.body = nn.Sequential(*stages)
        side = -(-self.img_size // 16)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(drop_rate),
            nn.Flatten(),
            nn.Linear(512 * side**2, num_classes),
            nn.BatchNorm1d(num_classes, affine=affine),
        )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the activations of the blocks again in the backward pass; timm's name for it."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Which names belong to which depth; timm's name for it."""
        ends = [sum(self.blocks[: n + 1]) for n in range(len(self.blocks))]
        if not coarse:
            return {"stem": r"^input_layer", "blocks": r"^body\.(\d+)"}
        stages = {
            f"stage{n}": rf"^body\.(?:{'|'.join(map(str, range(end - count, end)))})\."
            for n, (count, end) in enumerate(zip(self.blocks, ends, strict=True))
        }
        return {"stem": r"^input_layer", **stages}

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.input_layer(x)
        again = self.grad_checkpointing and self.training
        return checkpoint_seq(self.body, x) if again else self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.img_size, "ir")
        x = self.forward_features(x)
        # The last layer decides the angles; it stays out of reduced precision.
        with torch.autocast(x.device.type, enabled=False):
            return self.output_layer(x.to(next(self.output_layer.parameters()).dtype))


default_cfgs = generate_default_cfgs(
    {"ir": face_cfg(first_conv="input_layer.0", classifier="output_layer.3")}
)


@register_model
def ir(pretrained: bool = False, **kwargs: Any) -> IRNet:
    return build_model_with_cfg(IRNet, "ir", pretrained, **kwargs)
