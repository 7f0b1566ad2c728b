"""Small pictures and sets of them that tests share."""

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from marginface.data.images import encode_jpeg


def picture(seed: int, size: int = 112) -> NDArray[np.uint8]:
    """RGB: smooth colors, different for every seed."""
    small = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)
    return np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)


def jpegs(count: int, size: int = 112) -> list[bytes]:
    return [encode_jpeg(picture(seed, size)) for seed in range(count)]


def encoded(pixels: NDArray[np.uint8], kind: str, **settings: object) -> bytes:
    """Pixels through Pillow: kinds and settings OpenCV does not write."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **settings)
    return buffer.getvalue()


def make_folder(root: Path, counts: list[int], size: int = 112) -> Path:
    """Identities p0, p1, ... with so many JPEGs each."""
    seed = 0
    for person, count in enumerate(counts):
        (root / f"p{person}").mkdir(parents=True)
        for number in range(count):
            (root / f"p{person}" / f"{number}.jpg").write_bytes(encode_jpeg(picture(seed, size)))
            seed += 1
    return root
