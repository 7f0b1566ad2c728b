"""Sources of faces and their five points: a file, YuNet, a function of the user."""

import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from marginface.data.alignment.landmarks import DetectedFace, for_photos, read_landmarks
from marginface.data.images import Pixels
from marginface.utils.errors import InputError, MissingInputError

_LONG_SIDE = 640  # pixels, at which YuNet was trained
Detector = Callable[[Pixels, str], list[DetectedFace]]  # RGB pixels and path of a photograph


class LandmarkFile:
    """Looks faces up in a landmark file.

    Args:
        path: of the file.
        photos: all photographs, see `for_photos`.
        order: of the coordinates, see `point_order.in_order`.
    """

    def __init__(self, path: str | Path, photos: list[str], order: str = "auto") -> None:
        self.faces = for_photos(read_landmarks(path, order), photos)

    def __call__(self, rgb: Pixels, path: str) -> list[DetectedFace]:
        return self.faces.get(path, [])


class YuNet:
    """OpenCV's FaceDetectorYN with the user's ONNX file (opencv_zoo's face_detection_yunet).

    It finds faces of about 10 to 300 pixels, so photographs are looked at with a long side of 640
    pixels, whether they are larger or smaller.

    Args:
        path: the ONNX file.
        min_score: faces below it are not reported, 0 to 1.

    Raises:
        MissingInputError, InputError: no such file, or one OpenCV cannot use.
    """

    def __init__(self, path: str | Path, min_score: float = 0.7) -> None:
        if not Path(path).is_file():
            raise MissingInputError(
                f"no file {path}; download face_detection_yunet from opencv_zoo"
            )
        self._path, self._min_score = str(path), min_score
        self._local = threading.local()  # a detector keeps the image size it works on
        self._detector()

    def _detector(self) -> Any:
        if not hasattr(self._local, "detector"):
            try:
                self._local.detector = cv2.FaceDetectorYN.create(
                    self._path, "", (320, 320), self._min_score
                )
            except cv2.error as error:
                raise InputError(f"{self._path} is not a YuNet model ({error.err})") from error
        return self._local.detector

    def __call__(self, rgb: Pixels, path: str) -> list[DetectedFace]:
        detector = self._detector()
        height, width = rgb.shape[:2]
        scale = _LONG_SIDE / max(height, width)
        size = max(round(scale * width), 1), max(round(scale * height), 1)
        smaller = scale < 1
        looked_at = cv2.resize(
            rgb, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        )
        detector.setInputSize(size)
        _, rows = detector.detect(cv2.cvtColor(looked_at, cv2.COLOR_RGB2BGR))
        # Columns: box (4), five points in our order (it calls the left eye in the image the
        # person's right one), score. A pixel's center stays one when images are scaled.
        back = np.array([width / size[0], height / size[1]])
        return [
            DetectedFace(
                (np.asarray(row[4:14], np.float64).reshape(5, 2) + 0.5) * back - 0.5, float(row[14])
            )
            for row in (() if rows is None else rows)
        ]


def from_function(spec: str) -> Detector:
    """A detector from `package.module:function`.

    The function takes RGB pixels (H, W, 3) and returns the faces in them: for each an array (5, 2),
    or a pair of that and a score.

    Raises:
        InputError: no such function, or it returns something else.
    """
    module, _, name = spec.partition(":")
    sys.path.insert(0, os.getcwd())  # a console script does not look there
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"--detector {spec}: expected package.module:function that can be imported ({error})"
        ) from error

    def detect(rgb: Pixels, path: str) -> list[DetectedFace]:
        return [_as_face(face, spec) for face in _items(function(rgb), spec)]

    return detect


def _items(found: Any, spec: str) -> Iterable[Any]:
    if not isinstance(found, list | tuple | np.ndarray):
        raise InputError(f"{spec} returned {type(found).__name__}, expected a list of faces")
    return found


def _as_face(face: Any, spec: str) -> DetectedFace:
    points, score = face if isinstance(face, tuple) and len(face) == 2 else (face, None)
    try:
        array = np.asarray(points, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{spec} returned points that are not numbers ({error})") from error
    if array.shape != (5, 2):
        raise InputError(f"{spec} returned points of shape {array.shape}, expected (5, 2)")
    return DetectedFace(array, None if score is None else float(score))
