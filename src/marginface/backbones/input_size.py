"""Checks of the input size of a network."""

from typing import Any

from torch import Tensor

from marginface.utils.errors import InputError


def check_input_size(x: Tensor, image_size: int, name: str) -> None:
    """InputError unless `x` is a batch of image_size x image_size images."""
    if x.ndim != 4 or tuple(x.shape[-2:]) != (image_size, image_size):
        raise InputError(
            f"{name} was built for {image_size}x{image_size} images, got a batch of shape "
            f"{tuple(x.shape)}; set backbone.image_size to the images' size or resize the images"
        )


def side_of(img_size: int | tuple[int, int]) -> int:
    """S from S or from timm's (S, S)."""
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    if height != width:
        raise InputError(f"embedding networks take square images, got img_size={img_size}")
    return height


def face_cfg(**kwargs: Any) -> dict[str, Any]:
    """timm's description of a network that takes aligned 112x112 faces as (x/255 - 0.5) / 0.5."""
    return {
        "num_classes": 512,
        "input_size": (3, 112, 112),
        "pool_size": None,
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "fixed_input_size": True,
        **kwargs,
    }
