"""Encoded images to RGB pixels by stated rules: size, grayscale, transparency, orientation."""

import struct
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from marginface.data.jpeg_repair import without_oddities
from marginface.utils.errors import InputError

Pixels = NDArray[np.uint8]  # (H, W, 3) RGB
Grayscale = Literal["expand", "refuse"]
Alpha = Literal["refuse", "drop", "white"]
Exif = Literal["apply", "ignore", "refuse"]

MAX_PIXELS = 1 << 28  # a header of a few bytes must not claim all memory
_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the latter two with offsets of 8 bytes
_BEFORE_IMAGE = frozenset(bytes([code]) for code in (*range(0xE0, 0xF0), 0xFE))  # APPn, COM
_SIMPLEJPEG_ERRORS = (ValueError, KeyError)  # the latter for a header of unknown colors
_ORIENTATION_TAG = 0x0112
_OPPOSITE = {6: 8, 8: 6}  # quarter turns; the other orientations undo themselves


@dataclass(frozen=True)
class ImageRules:
    """What is done with images that are not plain upright RGB of the right size.

    Attributes:
        size: S, side of the square images that come out, in pixels; None takes any size.
        resize: stretch images of another size to S x S instead of refusing them.
        grayscale: `expand` makes three equal channels of one.
        alpha: images with transparency are refused, lose it, or are laid on white.
        exif: an EXIF orientation other than upright is applied, ignored or refused.
    """

    size: int | None = 112
    resize: bool = False
    grayscale: Grayscale = "expand"
    alpha: Alpha = "refuse"
    exif: Exif = "apply"

    def decode(self, encoded: bytes) -> Pixels:
        """(S, S, 3) RGB pixels of an encoded image.

        Raises:
            InputError: damaged, or something a rule refuses.
        """
        rgb = self._jpeg(encoded, None) if encoded.startswith(_JPEG) else None
        return self._sized(self._by_opencv(encoded) if rgb is None else rgb)

    def decode_into(self, encoded: bytes, out: Pixels) -> None:
        """The same, straight into (S, S, 3) `out`; saves a copy for most JPEGs."""
        if self.resize or not encoded.startswith(_JPEG):
            out[:] = self.decode(encoded)
            return
        rgb = self._jpeg(encoded, out)
        if rgb is None:
            rgb = self._by_opencv(encoded)
        if rgb.shape != out.shape:
            raise _other_size(rgb.shape, out.shape[0])
        if not np.may_share_memory(rgb, out):
            out[:] = rgb

    def _jpeg(self, encoded: bytes, out: Pixels | None) -> Pixels | None:
        """RGB of a JPEG, in `out` if it fits there; None for kinds only OpenCV reads (CMYK)."""
        orientation = self._orientation(encoded)
        if orientation != 1:
            out = None  # the pixels change places on their way there
        if out is None or self.grayscale == "refuse":
            shape = _jpeg_shape(encoded)
            if shape is None:
                return None
            if shape[2] == 1:
                self._check_gray()
            if shape[0] * shape[1] > MAX_PIXELS:
                raise InputError(f"{shape[1]}x{shape[0]} pixels, more than {MAX_PIXELS}; shrink it")
        try:
            rgb = _without_warnings(encoded, out)
        except _SIMPLEJPEG_ERRORS as error:
            shape = _jpeg_shape(encoded)
            if shape is None:
                return None
            if out is not None and shape[0] * shape[1] > out.shape[0] * out.shape[1]:
                raise _other_size(shape, out.shape[0]) from error
            raise InputError(f"damaged JPEG ({str(error).rstrip('.')})") from error
        return _upright(rgb, orientation)

    def _by_opencv(self, encoded: bytes) -> Pixels:
        """RGB of PNG, BMP, WebP, CMYK JPEG and whatever else OpenCV reads."""
        orientation = self._orientation(encoded)
        buffer = np.frombuffer(encoded, np.uint8)
        try:
            image = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED) if buffer.size else None
        except cv2.error as error:
            raise InputError(f"not a decodable image ({error.err})") from error
        if image is None:
            raise InputError(f"not a decodable image ({len(encoded)} bytes)")
        if image.dtype != np.uint8:
            raise InputError(f"{image.dtype} pixels, expected 8 bits a channel; convert the image")
        if image.ndim == 2:
            self._check_gray()
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        if image.shape[2] == 4:
            image = self._without_alpha(image)
        rgb: Pixels = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        if encoded.startswith(_TIFF):  # OpenCV has turned these upright already
            stated = exif_orientation(encoded) if self.exif == "ignore" else 1
            return _upright(rgb, _OPPOSITE.get(stated, stated))
        return _upright(rgb, orientation)

    def _orientation(self, encoded: bytes) -> int:
        if self.exif == "ignore":
            return 1
        orientation = exif_orientation(encoded)
        if orientation != 1 and self.exif == "refuse":
            raise InputError(
                f"its EXIF orientation is {orientation} (1 is upright); set data.dataset.exif="
                "apply to turn such images or =ignore to take the pixels as they are"
            )
        return orientation

    def _check_gray(self) -> None:
        if self.grayscale == "refuse":
            raise InputError(
                "a gray image; data.dataset.grayscale=expand makes three equal channels"
            )

    def _without_alpha(self, bgra: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.alpha == "refuse":
            raise InputError(
                "an image with transparency; set data.dataset.alpha=drop (keep the colors under "
                "it) or =white (lay it on white)"
            )
        bgr = bgra[..., :3]
        if self.alpha == "white":
            opacity = bgra[..., 3:].astype(np.float32) / 255
            bgr = np.rint(bgr * opacity + 255 * (1 - opacity)).astype(np.uint8)
        return np.ascontiguousarray(bgr)

    def _sized(self, rgb: Pixels) -> Pixels:
        if self.size is None or rgb.shape[:2] == (self.size, self.size):
            return rgb
        if not self.resize:
            raise _other_size(rgb.shape, self.size)
        resized: Pixels = cv2.resize(rgb, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return resized


ANY_IMAGE = ImageRules(size=None, alpha="drop")


def exif_orientation(encoded: bytes) -> int:
    """EXIF orientation 1 to 8 (CIPA DC-008, tag 0x0112); 1, upright, when none is stated."""
    start = _jpeg_exif(encoded) if encoded.startswith(_JPEG) else _other_exif(encoded)
    if start is None:
        return 1
    # In a TIFF file the tags may stand behind the pixels.
    tiff = encoded if start == 0 else encoded[start : start + (1 << 16)]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is None:
            return 1
        is_big = tiff.startswith((b"II+\0", b"MM\0+"))
        offset, start_at, count, width = ("Q", 8, "Q", 20) if is_big else ("I", 4, "H", 12)
        directory = struct.unpack_from(f"{order}{offset}", tiff, start_at)[0]
        entries = struct.unpack_from(f"{order}{count}", tiff, directory)[0]
        for entry in range(min(entries, len(tiff) // width)):
            at = directory + struct.calcsize(f"{order}{count}") + width * entry
            tag, kind = struct.unpack_from(f"{order}HH", tiff, at)
            if (tag, kind) == (_ORIENTATION_TAG, 3):
                value = struct.unpack_from(f"{order}H", tiff, at + (12 if is_big else 8))[0]
                return value if 1 <= value <= 8 else 1
    except struct.error:  # cut short: no orientation is stated
        pass
    return 1


def _jpeg_exif(encoded: bytes) -> int | None:
    """Where the TIFF header of a JPEG's EXIF segment begins."""
    at = 2
    while encoded[at : at + 1] == b"\xff" and encoded[at + 1 : at + 2] in _BEFORE_IMAGE:
        if encoded[at + 4 : at + 10] == b"Exif\0\0":
            return at + 10
        at += 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    return None


def _other_exif(encoded: bytes) -> int | None:
    """The same for PNG, WebP and TIFF."""
    if encoded.startswith(_TIFF):
        return 0
    for mark in (b"eXIf", b"EXIF"):
        at = encoded.find(mark)
        if at >= 0:
            # Of WebP's chunk the size comes first, and some writers repeat JPEG's mark.
            start = at + (8 if mark == b"EXIF" else 4)
            return start + 6 * (encoded[start : start + 6] == b"Exif\0\0")
    return None


def encode_jpeg(rgb: Pixels, quality: int = 95) -> bytes:
    """JPEG bytes of RGB pixels; 95 is the quality face sets are packed with."""
    done, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert done, "OpenCV could not encode an RGB array"
    return encoded.tobytes()


def _upright(rgb: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation: 2, 4, 5, 7 are mirrored, 5 to 8 are on their side."""
    if orientation >= 5:
        rgb = rgb.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    return rgb


def _without_warnings(encoded: bytes, out: Pixels | None) -> Pixels:
    """RGB of a JPEG; an error where libjpeg warns, unless only of what does no harm.

    OpenCV hides those warnings, of missing data and bad codes too.
    """
    try:
        rgb: Pixels = simplejpeg.decode_jpeg(encoded, "RGB", strict=True, buffer=out)
    except _SIMPLEJPEG_ERRORS as error:
        again = without_oddities(encoded)
        if again is None or again == encoded:
            raise
        try:
            rgb = simplejpeg.decode_jpeg(again, "RGB", strict=True, buffer=out)
        except _SIMPLEJPEG_ERRORS:
            raise error from None
    return rgb


def _jpeg_shape(encoded: bytes) -> tuple[int, int, int] | None:
    """Height, width and channels; None for colors and samplings only OpenCV reads."""
    try:
        height, width, color, _ = simplejpeg.decode_jpeg_header(encoded, strict=False)
    except _SIMPLEJPEG_ERRORS:
        return None
    channels = {"Gray": 1, "YCbCr": 3, "RGB": 3}.get(color)
    return None if channels is None else (height, width, channels)


def _other_size(shape: tuple[int, ...], size: int) -> InputError:
    return InputError(
        f"{shape[1]}x{shape[0]} pixels, expected {size}x{size}; align the faces to that size first "
        "(marginface align), or set data.dataset.resize=true to stretch every image"
    )


def resize_and_center_crop(rgb: Pixels, size: int) -> Pixels:
    """Scale the short side to `size` and cut the center square."""
    height, width = rgb.shape[:2]
    if (height, width) == (size, size):
        return rgb
    scale = size / min(height, width)
    shape = max(size, round(width * scale)), max(size, round(height * scale))
    scaled: Pixels = cv2.resize(
        rgb, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    top, left = (scaled.shape[0] - size) // 2, (scaled.shape[1] - size) // 2
    return scaled[top : top + size, left : left + size]
