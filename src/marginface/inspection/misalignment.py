"""Single crops that are not aligned as the others are: a small network learns to tell.

Crops of the set itself are turned, scaled and shifted by known amounts, and the network learns to
estimate by how much, on the assumption that most of the set is aligned one way. For crops that are
aligned, profiles included, the estimate is near zero.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, smooth_l1_loss

from marginface.data.alignment.template import TEMPLATE
from marginface.data.dataset import FaceDataset
from marginface.data.images import ANY_IMAGE

SIDE = 56  # the crops it looks at
MIN_CROPS = 500  # fewer teach it too little
MAX_OFFSET = 12.0  # pixels at 112; of 16,611 aligned crops one in 600 is above
_STEPS, _BATCH = 500, 128
_SAMPLE = 4000  # crops it learns from
_MIRRORED = [1, 0, 2, 4, 3]  # left and right change places


def crop_offsets(
    faces: FaceDataset, indices: NDArray[np.int64], on_progress: Callable[[str, int, int], None]
) -> NDArray[np.float64]:
    """(N,) offset of each crop in pixels at 112, NaN for those not among `indices`."""
    sample = np.random.default_rng(0).permutation(indices)[:_SAMPLE]
    on_progress("learning the position of crops", 0, 1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    estimator = OffsetEstimator(_crops(faces, sample), device=device)
    on_progress("learning the position of crops", 1, 1)
    offsets = np.full(len(faces), np.nan)
    for start in range(0, len(indices), 2048):
        part = indices[start : start + 2048]
        offsets[part] = estimator.offsets(_crops(faces, part)).numpy()
        on_progress("alignment", start + len(part), len(indices))
    return offsets


def _crops(faces: FaceDataset, indices: NDArray[np.int64]) -> Tensor:
    crops = np.empty((len(indices), SIDE, SIDE), np.uint8)
    for row, index in enumerate(indices.tolist()):
        gray = cv2.cvtColor(ANY_IMAGE.decode(faces.image_bytes(index)), cv2.COLOR_RGB2GRAY)
        crops[row] = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(crops)


class OffsetEstimator:
    """Estimates by how many pixels (at 112) crops are off the place most others have.

    Args:
        crops: (N, SIDE, SIDE) uint8 gray, at least MIN_CROPS.
        seed: of the network and of what it is shown.
        device: where to compute.
    """

    def __init__(self, crops: Tensor, seed: int = 0, device: str = "cpu") -> None:
        self.device = device
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = _network().to(device)
        optimizer = torch.optim.AdamW(self._network.parameters())
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=_STEPS)
        for _ in range(_STEPS):
            images, moved = _moved_crops(crops, generator)
            answer = self._network(_standardized(images.to(device)))
            loss = smooth_l1_loss(answer, moved.flatten(1).to(device), beta=4.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self._network.eval()

    @torch.no_grad()
    def offsets(self, crops: Tensor) -> Tensor:
        """(N,) root mean square displacement of the five points, pixels at 112.

        Args:
            crops: (N, SIDE, SIDE) uint8 gray.
        """
        parts = []
        for part in crops.split(512):
            images = _standardized(part[:, None].float().to(self.device))
            one = self._network(images).view(-1, 5, 2)
            other = self._network(images.flip(3)).view(-1, 5, 2)[:, _MIRRORED]
            mean = (one + other * other.new_tensor([-1, 1])) / 2
            parts.append(mean.square().sum(2).mean(1).sqrt().cpu())
        return torch.cat(parts)


def _network() -> nn.Sequential:
    def block(inside: int, outside: int, stride: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        return [convolution, nn.BatchNorm2d(outside), nn.ReLU()]

    return nn.Sequential(
        *block(1, 16, 2),
        *block(16, 32, 2),
        *block(32, 64, 1),
        *block(64, 64, 2),
        *block(64, 96, 1),
        nn.Flatten(),
        nn.Linear(96 * 7 * 7, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def _moved_crops(crops: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B, 1, SIDE, SIDE) moved crops, and (B, 5, 2) how far their points moved, pixels at 112."""
    chosen = torch.randint(len(crops), (_BATCH,), generator=generator)
    images = crops[chosen][:, None].float()
    draw = torch.rand(_BATCH, 6, generator=generator)
    scale = torch.exp(draw[:, 0] * 1.1 - 0.6)
    # One in ten at any angle: photographs on their side exist.
    reach = torch.where(draw[:, 1] < 0.1, math.pi, math.pi / 4)
    turn = (2 * draw[:, 2] - 1) * reach
    shift = 0.8 * draw[:, 3:5] - 0.4  # of the half side
    stay = draw[:, 5] < 0.3
    scale = torch.where(stay, 1.0, scale)
    turn = torch.where(stay, 0.0, turn)
    shift = torch.where(stay[:, None], 0.0, shift)
    cos, sin = scale * turn.cos(), scale * turn.sin()
    matrix = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)
    # Sampling asks where each pixel comes from: the inverse.
    inverse = torch.linalg.inv(matrix)
    grid = affine_grid(
        torch.cat([inverse, -(inverse @ shift[:, :, None])], 2),
        list(images.shape),
        align_corners=False,
    )
    border = "zeros" if torch.rand(1, generator=generator) < 0.5 else "border"
    images = grid_sample(images, grid, padding_mode=border, align_corners=False)
    points = torch.from_numpy(TEMPLATE).float() / 56 - 1
    return images, ((points @ matrix.transpose(1, 2) + shift[:, None]) - points) * 56


def _standardized(images: Tensor) -> Tensor:
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) / (images.std((1, 2, 3), keepdim=True) + 8)
