"""JPEG bytes to RGB pixels with OpenCV, the fastest decoder in common use."""

import cv2
import numpy as np
from numpy.typing import NDArray

from marginface.errors import InputError

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB


def decode_rgb(encoded: bytes | Pixels, what: str) -> Pixels:
    """Pixels of an encoded image; `what` names it in the error when it cannot be decoded."""
    buffer = np.frombuffer(encoded, np.uint8) if isinstance(encoded, bytes) else encoded
    try:
        # IMREAD_COLOR: grey becomes three equal channels, EXIF rotation is applied.
        bgr = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if buffer.size else None
    except cv2.error as error:
        raise InputError(f"{what}: not a decodable image ({error.err})") from error
    if bgr is None:
        raise InputError(f"{what}: not a decodable image ({buffer.size} bytes)")
    rgb: Pixels = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return rgb


def encode_jpeg(rgb: Pixels, quality: int = 95) -> bytes:
    """JPEG bytes of RGB pixels; 95 is the quality face sets are packed with."""
    done, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert done, "OpenCV could not encode an RGB array"
    return encoded.tobytes()


def check_size(rgb: Pixels, image_size: int, what: str) -> None:
    """InputError unless the pixels are image_size on both sides."""
    if rgb.shape[:2] != (image_size, image_size):
        height, width = rgb.shape[:2]
        raise InputError(
            f"{what}: {width}x{height} pixels, expected {image_size}x{image_size}; align the faces "
            "to that size first, or set data.dataset.resize=true to stretch every image"
        )
