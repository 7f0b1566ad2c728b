"""Arrays of pixels that users pass: RGB bytes, and a clear word on anything else."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from marginface.data.images import Pixels
from marginface.utils.errors import InputError

_WANTED = "expected RGB pixels, uint8 of shape (H, W, 3)"


def check_photo(array: Any, where: str = "the array") -> Pixels:
    """A photograph (H, W, 3), uint8 RGB.

    BGR, as OpenCV reads images, cannot be told from RGB: `array[..., ::-1]` turns it.

    Raises:
        InputError: floats, 16 bits, channels first, gray or four channels; with what to do.
    """
    array = _as_array(array, where)
    if array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1):
        raise InputError(
            f"{where} is gray, of shape {array.shape}; {_WANTED}. Convert with "
            "np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)"
        )
    if array.ndim == 3 and array.shape[2] == 4:
        raise InputError(
            f"{where} has four channels, {array.shape}; {_WANTED}. Convert with array[..., :3] "
            "where these are red, green and blue"
        )
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] != 3:
        raise InputError(
            f"{where} has its channels first, {array.shape}; {_WANTED}. Convert with "
            "array.transpose(1, 2, 0)"
        )
    if array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise InputError(f"{where} has shape {array.shape}; {_WANTED}")
    return array


def check_aligned(images: Any, size: int) -> NDArray[np.uint8]:
    """Aligned faces (N, S, S, 3), uint8 RGB; a single one (S, S, 3) becomes one of one.

    Raises:
        InputError: see `check_photo`, or another size.
    """
    array = _as_array(images, "the array")
    if array.ndim == 3 and array.shape[2] == 3:
        array = array[None]
    if array.ndim == 4 and array.shape[1] == 3 and array.shape[3] != 3:
        raise InputError(
            f"the array has its channels first, {array.shape}; expected uint8 RGB of shape "
            "(N, S, S, 3). Convert with array.transpose(0, 2, 3, 1)"
        )
    if array.ndim != 4:
        check_photo(array)
    if not len(array):
        raise InputError("no images: the array is empty")
    check_photo(array[0], "an image of the array")
    if array.shape[1:3] != (size, size):
        raise InputError(
            f"images of {array.shape[2]}x{array.shape[1]} pixels, the model takes aligned faces of "
            f"{size}x{size}; align them to that size (model.embed finds and aligns faces in "
            "photographs)"
        )
    return np.ascontiguousarray(array)


def _as_array(array: Any, where: str) -> NDArray[Any]:
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        raise InputError(f"{where} is {type(array).__name__}; {_WANTED}, a NumPy array")
    if not isinstance(array, np.ndarray):  # a tensor
        array = np.asarray(array.cpu() if hasattr(array, "cpu") else array)
    if array.dtype.kind == "f":
        unit = array.size and float(np.nanmin(array)) >= 0 and float(np.nanmax(array)) <= 1
        convert = "(array * 255).round().astype(np.uint8)" if unit else "array.astype(np.uint8)"
        raise InputError(
            f"{where} holds floats{' in [0, 1]' if unit else ''} ({array.dtype}); {_WANTED}. "
            f"Convert with {convert}"
        )
    if array.dtype != np.uint8:
        more = ". Convert with (array >> 8).astype(np.uint8)" if array.dtype == np.uint16 else ""
        raise InputError(f"{where} holds {array.dtype}; {_WANTED}{more}")
    if array.size and int(array.max()) == 1:
        raise InputError(
            f"{where} holds bytes of 0 and 1 only, as pixels in [0, 1] become when they are turned "
            f"into bytes; {_WANTED}, of 0 to 255"
        )
    return array
