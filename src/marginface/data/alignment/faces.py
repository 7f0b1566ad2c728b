"""Finds, checks and aligns the faces of a photograph; every command does it with this."""

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

from marginface.data.alignment.detectors import (
    BORDER,
    Detector,
    LandmarkFile,
    NoFaceError,
    with_border,
)
from marginface.data.alignment.landmarks import DetectedFace
from marginface.data.alignment.template import (
    MAX_MISFIT,
    Points,
    align,
    check_points,
    misfit,
    standard_template,
)
from marginface.data.images import Pixels
from marginface.utils.errors import InputError

Which = Literal["largest", "central", "only", "all"]
WHICH: tuple[Which, ...] = ("largest", "central", "only", "all")


@dataclass(frozen=True)
class AlignedFace:
    """A face, aligned.

    Attributes:
        pixels: (S, S, 3) RGB.
        points: (5, 2) in pixels of the photograph; None where it was aligned already.
        score: of the detector, when known.
        misfit: root mean square distance to the template in pixels at 112.
        identity: when the landmark file states it.
        found: faces that the detector found in the photograph.
    """

    pixels: Pixels
    points: Points | None = None
    score: float | None = None
    misfit: float | None = None
    identity: str | None = None
    found: int = 1


@dataclass(frozen=True)
class FaceFinder:
    """Photographs to aligned faces.

    Attributes:
        detector: finds faces and their points; None for photographs that are aligned faces.
        size: S, side of the aligned faces in pixels.
        target: (5, 2) where the points come to be; the standard template when not given.
        border: value of pixels beyond the photograph.
        which: of several faces the largest, the most central one, all, or "only": several are an
            error.
        min_face: pixels between the eyes or from the eyes to the mouth; smaller faces are left out.
        max_misfit: largest distance to the template, in pixels at 112.
    """

    detector: Detector | None
    size: int = 112
    target: Points | None = field(default=None)
    border: int = 0
    which: Which = "largest"
    min_face: float = 10.0
    max_misfit: float = MAX_MISFIT

    def __call__(self, rgb: Pixels, photo: str) -> list[AlignedFace]:
        """The faces of a photograph, largest first; one of them unless `which` is "all".

        Args:
            rgb: (H, W, 3).
            photo: its path, for landmark files and messages.

        Raises:
            NoFaceError: there is none.
            InputError: none that can be used, or several where one is wanted; with the reason.
        """
        if self.detector is None:
            return [AlignedFace(self._aligned_already(rgb))]
        faces = sorted(self._detect(rgb, photo), key=_extent, reverse=True)
        return [self._align(rgb, face, len(faces)) for face in self._chosen(faces, rgb)]

    def _chosen(self, faces: list[DetectedFace], rgb: Pixels) -> list[DetectedFace]:
        if self.which == "central":
            middle = np.array([rgb.shape[1], rgb.shape[0]]) / 2
            faces = [min(faces, key=lambda f: float(np.hypot(*(f.points.mean(0) - middle))))]
        if self.which in ("central", "largest"):
            self._check(faces[0], rgb)  # not the next one: that is somebody else
            return faces[:1]
        usable, reasons = [], []
        for face in faces:
            try:
                self._check(face, rgb)
                usable.append(face)
            except InputError as error:
                reasons.append(error)
        if not usable:
            raise reasons[0]
        if self.which == "only" and len(usable) > 1:
            raise InputError(
                f"{len(usable)} faces, and one is wanted; --face largest or --face central takes "
                "one of them"
            )
        return usable

    def _check(self, face: DetectedFace, rgb: Pixels) -> None:
        height, width = rgb.shape[:2]
        check_points(face.points, height, width, self.min_face, self.max_misfit)

    def _detect(self, rgb: Pixels, photo: str) -> list[DetectedFace]:
        """Faces, looked for again with a border around it: some fill their photograph."""
        assert self.detector is not None
        try:
            faces = list(self.detector(rgb, photo))
            if not faces and not isinstance(self.detector, LandmarkFile):
                faces = self._in_padded(rgb, photo)
        except InputError:
            raise
        except Exception as error:  # the user's code; other photographs may be fine
            raise InputError(f"the detector failed ({type(error).__name__}: {error})") from error
        if not faces:
            raise NoFaceError("no face")
        return faces

    def _in_padded(self, rgb: Pixels, photo: str) -> list[DetectedFace]:
        assert self.detector is not None
        down, across = (round(BORDER * side) for side in rgb.shape[:2])
        back = np.array([across, down])
        found = self.detector(with_border(rgb), photo)
        return [face._replace(points=face.points - back) for face in found]

    def _align(self, rgb: Pixels, face: DetectedFace, found: int) -> AlignedFace:
        pixels = align(rgb, face.points, self.size, self._target(), self.border)
        return AlignedFace(
            pixels, face.points, face.score, misfit(face.points), face.identity, found
        )

    def _target(self) -> Points:
        return standard_template(self.size) if self.target is None else self.target

    def _aligned_already(self, rgb: Pixels) -> Pixels:
        """An aligned face as it is, or from the standard template onto another one."""
        height, width = rgb.shape[:2]
        target = self._target()
        if (height, width) == (self.size, self.size) and np.allclose(
            target, standard_template(self.size), atol=1e-3
        ):
            return rgb
        if height != width or (height % 112 and height % 128):
            raise InputError(
                f"{width}x{height} pixels are no aligned face; those are squares of 112 or 128 "
                f"pixels or a multiple, or {self.size}. Leave --aligned out to find the face"
            )
        points = standard_template(height)
        scale = self.size / height
        if scale < 1 and np.allclose(points * scale, target, atol=1e-3):
            # The same face in fewer pixels, which warping would leave out instead of averaging.
            smaller: Pixels = cv2.resize(rgb, (self.size,) * 2, interpolation=cv2.INTER_AREA)
            return smaller
        return align(rgb, points, self.size, target, self.border)


def _extent(face: DetectedFace) -> float:
    return float(np.ptp(face.points, axis=0).max())
