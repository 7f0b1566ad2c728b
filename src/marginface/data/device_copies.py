"""Batches that are copied to a GPU while it computes, on a stream of their own."""

from collections.abc import Iterator
from contextlib import closing

import torch

from marginface.data.ahead import ahead
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

    def ahead(self, batches: Iterator[Batch], number: int) -> Iterator[Batch]:
        """The same batches with images on the GPU, `number` of them and one more made before.

        What is queued after a batch was taken begins when its images are there; the host does not
        wait for them.
        """
        with closing(ahead(self._begun(batches), number)) as begun:
            for batch, copied in begun:
                current = torch.cuda.current_stream(self._device)
                current.wait_event(copied)
                # The memory belongs to the other stream, which must not use it again before this
                # one is done with it.
                batch[0].record_stream(current)
                yield batch

    def _begun(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, torch.cuda.Event]]:
        """Batches whose copy has begun, and what tells that it is done."""
        # Of this thread. Without it that would be GPU 0, where a process that uses another one
        # would take memory for nothing.
        torch.cuda.set_device(self._device)
        for images, labels, indices in batches:
            with torch.cuda.stream(self._stream):
                copy = queue_to(self._device, images)
            yield (copy, labels, indices), self._stream.record_event()
