"""Random changes to training images, on uint8 batches and on whatever device they are.

Every number is drawn from (seed, epoch, image index), so workers, processes and a resumed run make
no difference. A change is a pure function: float images (R, 3, S, S) in 0..255 and uniform numbers
(R, 8) to changed images.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate, pad

from marginface.data.grouped_changes import change_in_groups
from marginface.data.rand_augment import RandAugment
from marginface.utils.arguments import Probability
from marginface.utils.errors import InputError
from marginface.utils.hardware import queue_to
from marginface.utils.seeded_random import hash_bits, hash_uniform

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_NUMBERS = 8  # uniform numbers a change may use
_DECIDES = ("low_resolution",)  # changes that look at their numbers, so want them on the host


class Augmentation:
    """Changes each image with the given probabilities, independently and in this order.

    Args:
        flip: mirror; 0 or 0.5.
        affine: turn by up to 15 degrees, scale by 0.9 to 1.1, shift by up to 5 % of the side.
        crop: keep a window of 20 to 100 % of the area in its place, black around it.
        photometric: brightness, contrast and saturation by factors of 0.5 to 1.5.
        grayscale: no color.
        blur: Gaussian of 0.5 to 2 pixels.
        low_resolution: shrink to 20 to 100 % of the side and enlarge again.
        erase: a gray rectangle over 2 to 20 % of the area.
        rand_augment: how many changes of torchvision's RandAugment (arXiv 1909.13719) each image
            gets after these.
        rand_augment_magnitude: of these, from 0 to 30.

    Crop, photometric and low_resolution at 0.2 each follow AdaFace's training code (augmenter.py);
    its order of the color changes is random, ours is fixed.

    Raises:
        InputError: something that is not a probability.
    """

    def __init__(
        self,
        *,
        flip: Probability = 0.5,
        affine: Probability = 0.0,
        crop: Probability = 0.0,
        photometric: Probability = 0.0,
        grayscale: Probability = 0.0,
        blur: Probability = 0.0,
        low_resolution: Probability = 0.0,
        erase: Probability = 0.0,
        rand_augment: int = 0,
        rand_augment_magnitude: int = 9,
    ) -> None:
        if flip not in (0, 0.5):
            raise InputError(f"augmentation.flip must be 0 or 0.5, got {flip}")
        self.flip = flip
        self.probabilities = {
            "affine": affine,
            "crop": crop,
            "photometric": photometric,
            "grayscale": grayscale,
            "blur": blur,
            "low_resolution": low_resolution,
            "erase": erase,
        }
        for name, probability in self.probabilities.items():
            if not 0 <= probability <= 1:
                raise InputError(f"augmentation.{name} must be within [0, 1], got {probability}")
        if rand_augment < 0 or not 0 <= rand_augment_magnitude <= 30:
            raise InputError(
                "augmentation.rand_augment must not be negative and its magnitude within [0, 30], "
                f"got {rand_augment} and {rand_augment_magnitude}"
            )
        self.rand_augment = (
            RandAugment(rand_augment, rand_augment_magnitude) if rand_augment else None
        )

    def __call__(self, images: Tensor, indices: Tensor, seed: int, epoch: int) -> Tensor:
        """Changed images uint8 (B, 3, S, S), of image indices (B,).

        Indices that are on the host keep all decisions there: no device is waited for.
        """
        if self.flip:
            images = random_flip(images, seed, epoch, indices)
        wanted = [(stream, name) for stream, name in enumerate(CHANGES) if self.probabilities[name]]
        streams = [stream for stream, _ in wanted]
        drawn: Tensor | list[Tensor] = []
        if wanted:
            drawn = hash_uniform(seed, epoch, indices, _NUMBERS + 1, streams)
        for (_, name), numbers in zip(wanted, drawn, strict=True):
            rows = (numbers[:, 0] < self.probabilities[name]).nonzero()[:, 0]
            if len(rows):
                numbers = numbers[rows, 1:]
                if name not in _DECIDES:
                    numbers = queue_to(images.device, numbers)
                rows = queue_to(images.device, rows)
                changed = CHANGES[name](images[rows].float(), numbers)
                images = images.index_copy(0, rows, changed.round().clamp(0, 255).byte())
        if self.rand_augment is not None:
            images = self.rand_augment.of_batch(images, indices, seed, epoch)
        return images


def affine(images: Tensor, numbers: Tensor) -> Tensor:
    """Turned, scaled and shifted about the center; black outside."""
    angle = _between(numbers[:, 0], -15, 15).deg2rad()
    scale = _between(numbers[:, 1], 0.9, 1.1)
    cos, sin = angle.cos() / scale, angle.sin() / scale
    # grid_sample's coordinates run from -1 to 1, so 5 % of the side is 0.1.
    x, y = _between(numbers[:, 2], -0.1, 0.1), _between(numbers[:, 3], -0.1, 0.1)
    matrix = torch.stack([cos, -sin, x, sin, cos, y], 1).view(-1, 2, 3)
    grid = affine_grid(matrix, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


def crop(images: Tensor, numbers: Tensor) -> Tensor:
    """Black outside a window of random area, shape (3:4 to 4:3) and place."""
    aspect = _between(numbers[:, 1], math.log(3 / 4), math.log(4 / 3)).exp()
    return images * _window(images, _between(numbers[:, 0], 0.2, 1), aspect, numbers[:, 2:4])


def photometric(images: Tensor, numbers: Tensor) -> Tensor:
    """Brightness, then contrast about the mean, then saturation about the gray image."""
    brightness, contrast, saturation = _between(numbers[:, :3, None, None, None], 0.5, 1.5).unbind(
        1
    )
    images = (images * brightness).clamp(0, 255)
    mean = _gray(images).mean((2, 3), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0, 255)
    colorless = _gray(images)
    return colorless + saturation * (images - colorless)


def grayscale(images: Tensor, numbers: Tensor) -> Tensor:
    """The luma in all three channels."""
    return _gray(images).expand_as(images)


def blur(images: Tensor, numbers: Tensor) -> Tensor:
    """Gaussian, the edge continued outside."""
    sigma = _between(numbers[:, 0], 0.5, 2)
    reach = 5  # 2.5 times the largest sigma
    taps = torch.arange(-reach, reach + 1, device=images.device)
    weights = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    weights = (weights / weights.sum(1, keepdim=True))[..., None, None, None]
    # A sum of shifted images and no convolution: its rounding does not depend on the batch.
    for axis, border in ((2, (0, 0, reach, reach)), (3, (reach, reach, 0, 0))):
        padded = pad(images, border, mode="replicate")
        size = images.shape[axis]
        images = sum(
            (weights[:, tap] * padded.narrow(axis, tap, size) for tap in range(2 * reach + 1)),
            torch.zeros_like(images),
        )
    return images


def low_resolution(images: Tensor, numbers: Tensor) -> Tensor:
    """Shrunk with antialiasing, enlarged with nearest, bilinear or bicubic interpolation."""
    size, methods = images.shape[-1], ("nearest", "bilinear", "bicubic")

    def change(part: Tensor, kind: int) -> Tensor:
        side, method = divmod(kind, 3)
        small = interpolate(part, (side, side), mode="bilinear", antialias=True)
        return interpolate(small, (size, size), mode=methods[method])

    sides = (_between(numbers[:, 0], 0.2, 1) * size).long().clamp(min=1)
    methods_drawn = (numbers[:, 1] * 3).long().clamp(max=2)
    return change_in_groups(images, sides * 3 + methods_drawn, change)


def erase(images: Tensor, numbers: Tensor) -> Tensor:
    """Mid-gray inside a rectangle of random area, shape (1:3 to 3:1) and place."""
    aspect = _between(numbers[:, 1], math.log(1 / 3), math.log(3)).exp()
    inside = _window(images, _between(numbers[:, 0], 0.02, 0.2), aspect, numbers[:, 2:4])
    return torch.where(inside, 127.0, images)


CHANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "affine": affine,
    "crop": crop,
    "photometric": photometric,
    "grayscale": grayscale,
    "blur": blur,
    "low_resolution": low_resolution,
    "erase": erase,
}


def _window(images: Tensor, area: Tensor, aspect: Tensor, place: Tensor) -> Tensor:
    """(R, 1, S, S) whether a pixel is in a rectangle of that area (a share) and width:height."""
    size = images.shape[-1]
    height = (size * (area / aspect).sqrt()).round().clamp(1, size)
    width = (size * (area * aspect).sqrt()).round().clamp(1, size)
    top = ((size - height + 1) * place[:, 0]).floor()
    left = ((size - width + 1) * place[:, 1]).floor()
    at = torch.arange(size, device=images.device)
    rows = (at >= top[:, None]) & (at < (top + height)[:, None])
    columns = (at >= left[:, None]) & (at < (left + width)[:, None])
    return rows[:, None, :, None] & columns[:, None, None, :]


def _gray(images: Tensor) -> Tensor:
    red, green, blue = images.split(1, 1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform


def random_flip(images: Tensor, seed: int, epoch: int, indices: Tensor) -> Tensor:
    """Mirror each image with probability 1/2, decided by (seed, epoch, sample index) alone."""
    flipped = queue_to(images.device, hash_bits(seed, epoch, indices) & 1 == 1)
    return torch.where(flipped[:, None, None, None], images.flip(3), images)
