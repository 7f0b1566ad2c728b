"""How faces are found in photographs: the options that all commands share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marginface.data.alignment.detectors import (
    LONG_SIDE,
    Detector,
    LandmarkFile,
    YuNet,
    from_function,
    mtcnn,
    of_callable,
    yunet_file,
)
from marginface.data.alignment.faces import WHICH, FaceFinder, Which
from marginface.data.alignment.template import MAX_MISFIT
from marginface.inference.description import NetworkInput
from marginface.utils.errors import InputError, check_choice

DETECTORS = ("yunet", "mtcnn", "none")


@dataclass(frozen=True)
class PhotoOptions:
    """How faces are found.

    Attributes:
        detector: "yunet", "mtcnn", "none" (photographs are aligned faces),
            "package.module:function", or a function of RGB pixels, see `detectors.from_function`.
        yunet: its ONNX file, see `detectors.yunet_file`.
        detector_size: long side in pixels at which YuNet looks at photographs.
        tiles: for crowds, see `detectors.YuNet`.
        landmarks: file with the points of the faces, or what was read of it for photographs of
            several calls, instead of a detector.
        face: which one of several, see `FaceFinder`; None: what the call is usually wanted for.
        min_face, max_misfit: see `FaceFinder`.
    """

    detector: str | Callable[..., Any] = "yunet"
    yunet: Path | None = None
    detector_size: int = LONG_SIDE
    tiles: int = 1
    landmarks: Path | LandmarkFile | None = None
    face: Which | None = None
    min_face: float = 10.0
    max_misfit: float = MAX_MISFIT

    def finder(
        self, taken: NetworkInput, photos: Sequence[str] = (), usual: Which = "all"
    ) -> FaceFinder:
        """The finder for a network.

        Args:
            taken: template and size that faces are aligned to.
            photos: paths, for a landmark file.
            usual: which face, where the options leave it open.

        Raises:
            InputError: an option that is wrong, a detector or file that is missing.
        """
        which = self.face or usual
        check_choice("--face", which, WHICH)
        if self.min_face < 0 or self.max_misfit <= 0:
            raise InputError(
                f"--min-face must be 0 or more and --max-misfit above 0, got {self.min_face} and "
                f"{self.max_misfit}"
            )
        return FaceFinder(
            self._detector(photos),
            taken.size,
            taken.points,
            taken.border,
            which,
            self.min_face,
            self.max_misfit,
        )

    def _detector(self, photos: Sequence[str]) -> Detector | None:
        if isinstance(self.landmarks, LandmarkFile):
            return self.landmarks
        if self.landmarks is not None:
            return LandmarkFile(self.landmarks, Path(), photos=list(photos))
        if not isinstance(self.detector, str):
            return of_callable(self.detector)
        if self.detector == "none":
            return None
        if self.detector == "yunet":
            return YuNet(yunet_file(self.yunet), tiles=self.tiles, size=self.detector_size)
        if self.detector == "mtcnn":
            return mtcnn(max(2 * self.min_face, 20.0))
        if ":" not in self.detector:
            raise InputError(
                f"unknown --detector {self.detector!r}. Known: {', '.join(DETECTORS)}, and "
                "package.module:function"
            )
        return from_function(self.detector)
