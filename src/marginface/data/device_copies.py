"""Batches that are copied to a GPU while it computes, on a stream of their own."""

from collections.abc import Iterator

import torch
from torch import Tensor

from marginface.data.image_dataset import Batch
from marginface.utils.hardware import queue_to


class DeviceCopies:
    """Copies images of batches to a GPU ahead of the steps that use them.

    Args:
        device: that GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def begin(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, with images whose copy has begun; not to be read before `wait_for`."""
        for images, labels, indices in batches:
            with torch.cuda.stream(self._stream):
                copy = queue_to(self._device, images)
            yield copy, labels, indices

    def wait_for(self, images: Tensor) -> None:
        """Have work that is queued from now on begin when the images are there."""
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        # Their memory belongs to the other stream, which must not use it again before this one is
        # done with it.
        images.record_stream(current)
