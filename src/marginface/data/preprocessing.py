"""What a network takes: images as floats, normalized, in its channel order."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from marginface.utils.hardware import queue_to

Color = Literal["rgb", "bgr"]
MIDDLE = (127.5, 127.5, 127.5)  # mean and standard deviation that bring bytes to [-1, 1]


def normalize_images(
    images: Tensor,
    color: Color = "rgb",
    mean: Sequence[float] = MIDDLE,
    std: Sequence[float] = MIDDLE,
) -> Tensor:
    """uint8 (B, 3, S, S) RGB to float32 (x - mean) / std, in the network's order.

    Args:
        color: of the channels that come out.
        mean, std: of each channel that comes out, in units of 0 to 255; with those that are not
            given it is (x/255 - 0.5)/0.5, in [-1, 1].
    """
    if tuple(mean) == tuple(std) == MIDDLE:
        scaled = images.to(torch.float32).div_(127.5).sub_(1.0)
        return scaled.flip(1) if color == "bgr" else scaled
    pixels = images.to(torch.float32)
    ordered = pixels.flip(1) if color == "bgr" else pixels
    middle, width = (
        queue_to(images.device, torch.tensor(values)).view(1, 3, 1, 1) for values in (mean, std)
    )
    return (ordered - middle) / width


def embed_with_flip(network: nn.Module, images: Tensor) -> Tensor:
    """(B, 3, S, S) what the network takes to float32 (B, D): image and mirror image added."""
    return network(images).float() + network(images.flip(3)).float()
