"""Partial FC: the classes a step compares with (arXiv 2203.15565)."""

import torch
from torch import Tensor

from marginface.utils.seeded_random import hash_bits

_LARGEST = (1 << 63) - 1
_CLASSES = 0x436C6173  # keeps these numbers apart from those of images


def sample_classes(
    positives: Tensor, num_classes: int, rate: float, seed: int, step: int
) -> Tensor:
    """Sorted ids of the classes in `positives` and of random others, `rate` of all together.

    The same for every device, process and number of processes: each class has a number hashed from
    (seed, step, class), and those with the least are taken. All positives are, and at least one
    other class. How many these are is known without looking at the device, unless the share of the
    classes is not larger than the batch.
    """
    number = round(rate * num_classes)
    if len(positives) >= number:  # some may be of one class: they have to be counted
        number = max(number, len(positives.unique()) + 1)
    classes = torch.arange(num_classes, device=positives.device)
    numbers = hash_bits(seed ^ _CLASSES, step, classes).bitwise_and_(_LARGEST)
    numbers.index_fill_(0, positives, -1)
    number = min(number, num_classes)
    return numbers.topk(number, largest=False, sorted=False).indices.sort().values
