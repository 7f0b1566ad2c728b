"""torchvision's RandAugment for a batch: images that draw the same change are changed together."""

import torch
import torchvision.transforms.v2
from torch import Tensor

from marginface.data.grouped_changes import change_in_groups
from marginface.utils.hardware import QueuedTensors
from marginface.utils.seeded_random import hash_uniform

_SEED = 0x52416E64  # keeps its numbers apart from those of flips


class RandAugment(torchvision.transforms.v2.RandAugment):
    """The changes of RandAugment (arXiv 1909.13719), drawn from (seed, epoch, image).

    What is drawn is torchvision's: one of 14 changes, and for nine of them a direction, each as
    probable as the others.

    Args:
        number: of changes each image gets, one after the other.
        magnitude: of these, from 0 to 30.
    """

    def __init__(self, number: int, magnitude: int) -> None:
        super().__init__(number, magnitude, fill=127)
        self._names = list(self._AUGMENTATION_SPACE)

    def of_batch(self, images: Tensor, indices: Tensor, seed: int, epoch: int) -> Tensor:
        """Changed images uint8 (B, 3, S, S), of image indices (B,)."""
        places = range(self.num_ops)
        with QueuedTensors():  # matrices, colors and the like
            for numbers in hash_uniform(seed ^ _SEED, epoch, indices, 2, places).unbind():
                images = change_in_groups(images, self._kinds(numbers), self._changed)
        return images

    def _kinds(self, numbers: Tensor) -> Tensor:
        """(B,) kinds: twice the number of a change, and one more where it goes backwards."""
        signed = torch.tensor(
            [signed for _, signed in self._AUGMENTATION_SPACE.values()], device=numbers.device
        )
        names = (numbers[:, 0] * len(self._names)).long().clamp(max=len(self._names) - 1)
        return 2 * names + (signed[names] & (numbers[:, 1] < 0.5))

    def _changed(self, images: Tensor, kind: int) -> Tensor:
        name, is_backward = self._names[kind // 2], kind % 2
        magnitude = self._magnitude(name, images.shape[-1])
        return self._apply_image_or_video_transform(
            images,
            name,
            -magnitude if is_backward else magnitude,
            interpolation=self.interpolation,
            fill=self._fill,
        )

    def _magnitude(self, name: str, side: int) -> float:
        magnitudes = self._AUGMENTATION_SPACE[name][0](self.num_magnitude_bins, side, side)
        return 0.0 if magnitudes is None else float(magnitudes[self.magnitude])
