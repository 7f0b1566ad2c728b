"""Changes that images have in common, made to all of these at once: few launches on a GPU."""

from collections.abc import Callable

import torch
from torch import Tensor

from marginface.utils.hardware import queue_to


def change_in_groups(
    images: Tensor, kinds: Tensor, change: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Images (R, ...), each changed as its kind says.

    Args:
        kinds: (R,) int64; where they are on the host, no device is waited for.
        change: images of one kind, and that kind, to changed images.
    """
    kinds, order = kinds.sort(stable=True)
    kinds, counts = kinds.unique_consecutive(return_counts=True)
    parts = images[queue_to(images.device, order)].split(counts.tolist())
    changed = [change(part, kind) for part, kind in zip(parts, kinds.tolist(), strict=True)]
    return torch.cat(changed)[queue_to(images.device, order.argsort())]
