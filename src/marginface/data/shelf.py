"""What the processes that read a dataset share: decoded images, and which images are faulty."""

import shutil
from pathlib import Path

import torch

from marginface.console import warn_here
from marginface.data.images import Pixels
from marginface.errors import InputError

_UNKNOWN, _KEPT, _FAULTY = range(3)


class Shelf:
    """One state per image and, if asked for, its pixels, in shared memory.

    Args:
        count: N images.
        image_size: S of the images to keep; None keeps none.

    Raises:
        InputError: less shared memory than the images need.
    """

    def __init__(self, count: int, image_size: int | None) -> None:
        self._state = torch.zeros(count, dtype=torch.uint8).share_memory_()
        self._pixels = None
        if image_size is not None:
            shape = (count, image_size, image_size, 3)
            check_shared_memory(count * image_size * image_size * 3, "data.dataset.cache")
            self._pixels = torch.empty(shape, dtype=torch.uint8).share_memory_()

    def take(self, index: int, out: Pixels) -> bool:
        """Copy a kept image to `out`; False when it is not here."""
        if self._pixels is None or self._state[index] != _KEPT:
            return False
        out[:] = self._pixels[index].numpy()
        return True

    def put(self, index: int, pixels: Pixels) -> None:
        """Keep an image, if images are kept."""
        if self._pixels is not None:
            self._pixels[index].numpy()[:] = pixels
            self._state[index] = _KEPT  # after the pixels: another process may read it at once

    def is_faulty(self, index: int) -> bool:
        return bool(self._state[index] == _FAULTY)

    def mark_faulty(self, index: int, reason: str) -> None:
        self._state[index] = _FAULTY
        warn_here(f"left out: {reason}")

    @property
    def faulty_count(self) -> int:
        return int((self._state == _FAULTY).sum())


def check_shared_memory(needed: int, setting: str) -> None:
    """InputError when less than `needed` bytes are left; the kernel would end the process."""
    shared = Path("/dev/shm")
    free = shutil.disk_usage(shared).free if shared.is_dir() else needed
    if needed > free:
        raise InputError(
            f"{setting} needs {needed / 2**30:.2f} GiB of shared memory, {shared} has "
            f"{free / 2**30:.2f} GiB left; enlarge it (docker run --shm-size) or change {setting}"
        )
