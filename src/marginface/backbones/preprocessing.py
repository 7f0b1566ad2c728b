"""What a network takes: images as floats, normalized, in its channel order."""

from typing import Literal

import torch
from torch import Tensor, nn

Color = Literal["rgb", "bgr"]


def normalize_images(images: Tensor, color: Color = "rgb") -> Tensor:
    """uint8 (B, 3, S, S) RGB to float32 (x/255 - 0.5)/0.5 in [-1, 1], in the network's order."""
    scaled = images.to(torch.float32).div_(127.5).sub_(1.0)
    return scaled.flip(1) if color == "bgr" else scaled


def embed_with_flip(network: nn.Module, images: Tensor) -> Tensor:
    """(B, 3, S, S) what the network takes to float32 (B, D): image and mirror image added."""
    return network(images).float() + network(images.flip(3)).float()
