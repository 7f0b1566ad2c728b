"""Measurements of single images (size, brightness, sharpness, hashes), by several processes."""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from marginface.data.image_dataset import ImageDataset
from marginface.data.images import ImageRules, Pixels
from marginface.utils.errors import InputError

SIDE = 112  # images are brought to this size before they are measured
_CHUNK = 256
_HASH_SIDE = 16
_BLACK = 8  # of 255; JPEG makes black a little brighter


@dataclass
class ImageMeasurements:
    """One row for each of N images; rows of unreadable images hold zeros.

    Attributes:
        sha256: (N, 16) first bytes of the hash of the encoded image; zeros without any bytes.
        phash: (N, 32) perceptual hash, see `perceptual_hash`.
        shape: (N, 2) height and width.
        brightness: (N,) mean gray value, 0 to 255.
        sharpness: (N,) variance of the Laplacian of the gray image.
        color: (N, 3) mean red, green, blue of the middle.
        gray: (SIDE, SIDE) sum of the standardized gray images, without what is beyond photographs.
        rgb: (SIDE, SIDE, 3) sum of the images.
        faults: reason by image.
    """

    sha256: NDArray[np.uint8]
    phash: NDArray[np.uint8]
    shape: NDArray[np.int32]
    brightness: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    color: NDArray[np.float32]
    gray: NDArray[np.float64]
    rgb: NDArray[np.float64]
    faults: dict[int, str] = field(default_factory=dict)

    @property
    def readable(self) -> NDArray[np.bool_]:
        """(N,) whether an image could be decoded."""
        return self.shape[:, 0] > 0


def measure(
    dataset: ImageDataset, rules: ImageRules, on_progress: Callable[[int, int], None]
) -> ImageMeasurements:
    """Measurements of all images.

    Args:
        dataset: what to look at.
        rules: of decoding; what they refuse is a fault.
        on_progress: called with the images done and all of them.
    """
    chunks = [range(s, min(s + _CHUNK, len(dataset))) for s in range(0, len(dataset), _CHUNK)]
    parts = []
    with ProcessPoolExecutor(os.cpu_count(), initializer=_begin, initargs=(dataset, rules)) as pool:
        for chunk, part in zip(chunks, pool.map(_measure_chunk, chunks), strict=True):
            parts.append(part)
            on_progress(chunk.stop, len(dataset))
    joined = {
        f.name: np.concatenate([getattr(part, f.name) for part in parts])
        for f in fields(ImageMeasurements)
        if f.name not in ("gray", "rgb", "faults")
    }
    return ImageMeasurements(
        **joined,
        gray=sum((part.gray for part in parts), np.zeros((SIDE, SIDE))),
        rgb=sum((part.rgb for part in parts), np.zeros((SIDE, SIDE, 3))),
        faults={index: reason for part in parts for index, reason in part.faults.items()},
    )


_worker_job: tuple[ImageDataset, ImageRules]  # of this worker process


def _begin(dataset: ImageDataset, rules: ImageRules) -> None:
    global _worker_job
    _worker_job = dataset, rules
    cv2.setNumThreads(0)


def _measure_chunk(indices: range) -> ImageMeasurements:
    dataset, rules = _worker_job
    n = len(indices)
    measured = ImageMeasurements(
        sha256=np.zeros((n, 16), np.uint8),
        phash=np.zeros((n, _HASH_SIDE**2 // 8), np.uint8),
        shape=np.zeros((n, 2), np.int32),
        brightness=np.zeros(n, np.float32),
        sharpness=np.zeros(n, np.float32),
        color=np.zeros((n, 3), np.float32),
        gray=np.zeros((SIDE, SIDE)),
        rgb=np.zeros((SIDE, SIDE, 3)),
    )
    for row, index in enumerate(indices):
        try:
            encoded = dataset.image_bytes(index)
            if not encoded:
                raise InputError("the file is empty (0 bytes)")
            digest = hashlib.sha256(encoded).digest()[:16]
            measured.sha256[row] = np.frombuffer(digest, np.uint8)
            _measure_image(measured, row, rules.decode(encoded))
        except InputError as error:
            measured.faults[index] = str(error)
    return measured


def _measure_image(measured: ImageMeasurements, row: int, rgb: Pixels) -> None:
    measured.shape[row] = rgb.shape[:2]
    if rgb.shape[:2] != (SIDE, SIDE):
        rgb = np.asarray(cv2.resize(rgb, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    measured.phash[row] = perceptual_hash(gray)
    measured.brightness[row] = gray.mean()
    measured.sharpness[row] = cv2.Laplacian(gray, cv2.CV_32F).var()
    quarter = SIDE // 4
    measured.color[row] = rgb[quarter:-quarter, quarter:-quarter].mean((0, 1))
    photographed = ~beyond_photograph(rgb)
    standard = (gray - gray[photographed].mean()) / (gray[photographed].std() + 1)
    measured.gray += np.where(photographed, standard, 0.0)
    measured.rgb += rgb


def beyond_photograph(rgb: Pixels) -> NDArray[np.bool_]:
    """(H, W) the black that alignment puts where a photograph ends, as far as can be seen.

    Its straight edges are stronger than those of a face. Nothing where all of the image is black.
    """
    black = (rgb.max(2) <= _BLACK).astype(np.uint8)
    border = np.concatenate([black[0], black[-1], black[:, 0], black[:, -1]])
    if not border.any() or black.all():
        return np.zeros(black.shape, np.bool_)
    _, part = cv2.connectedComponents(black)
    touching = np.unique(np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])[border > 0])
    return np.isin(part, touching)


def perceptual_hash(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """256 bits: which of the lowest DCT coefficients are above their median, the mean left out.

    Of 16,611 aligned faces re-encoded at JPEG quality 30, scaled to 80 pixels or brightened, most
    differ in under 12 bits; two different photographs did so once.
    """
    small = cv2.resize(gray, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    lowest = cv2.dct(small)[:_HASH_SIDE, :_HASH_SIDE].ravel()
    bits = lowest > np.median(lowest[1:])
    bits[0] = False
    return np.packbits(bits)
