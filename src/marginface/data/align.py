"""Align a folder of photographs: every face warped onto the template, everything else explained."""

import os
import shutil
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from marginface.data.alignment import align, check_points, template
from marginface.data.detection import Detector
from marginface.data.folder import is_image_name
from marginface.data.images import ANY_IMAGE, Pixels, encode_jpeg
from marginface.data.landmarks import Face
from marginface.errors import InputError, MissingInputError


@dataclass
class AlignResult:
    """What became of the photographs.

    Attributes:
        aligned: path of the aligned face by photograph, both relative.
        rejected: reason by photograph.
        several: photographs with more than one face, of which the largest was taken.
        mean: (S, S, 3) float, the mean aligned face.
        examples: some aligned faces.
    """

    aligned: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    several: list[str] = field(default_factory=list)
    mean: NDArray[np.float64] | None = None
    examples: list[Pixels] = field(default_factory=list)

    def reasons(self) -> Counter[str]:
        """How often each reason occurs, numbers in it left out."""
        return Counter(
            "".join("#" if c.isdigit() else c for c in reason.split(" (")[0])
            for reason in self.rejected.values()
        )


def align_photos(
    source: str | Path,
    target: str | Path,
    detector: Detector,
    *,
    size: int = 112,
    min_face: float = 10.0,
    identities: dict[str, str] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> AlignResult:
    """Write the aligned face of every photograph below `source` into the new folder `target`.

    A photograph identity/name.png becomes identity/name.jpg. Photographs that lie directly in
    `source` go to the identity that `identities` or the landmark file gives them. `target` appears
    when all are done.

    Args:
        source: folder with photographs, in folders or not.
        target: a folder that does not exist or is empty.
        detector: finds the faces in a photograph; the largest of several is taken.
        size: S, side of the aligned faces; a multiple of 112 or 128.
        min_face: pixels of the photograph between the eyes or from eyes to mouth; smaller faces
            are rejected.
        identities: identity by photograph.
        report: called with the photographs done and all of them.

    Raises:
        MissingInputError: no folder `source`, or no photograph in it.
        InputError: a target that is not empty, a size without template, no face at all.
    """
    source, target = Path(source), Path(target)
    template(size)
    photos = find_photos(source)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists; choose another name, nothing is overwritten")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    result = AlignResult()
    try:
        worker = _Worker(source, partial, detector, size, min_face, identities or {})
        total = np.zeros((size, size, 3))
        for number, (photo, outcome) in enumerate(_in_order(worker, photos), start=1):
            if isinstance(outcome, str):
                result.rejected[photo] = outcome
            else:
                result.aligned[photo] = outcome.path
                total += outcome.face
                if outcome.num_faces > 1:
                    result.several.append(photo)
                if len(result.examples) < 48:
                    result.examples.append(outcome.face)
            report(number, len(photos))
        if not result.aligned:
            photo, reason = next(iter(result.rejected.items()))
            raise InputError(f"no face was aligned; the first photograph, {photo}: {reason}")
        result.mean = total / len(result.aligned)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def find_photos(source: Path) -> list[str]:
    """Paths of all images below a folder, relative to it and sorted.

    Raises:
        MissingInputError: no folder, or no image in it.
    """
    if not source.is_dir():
        raise MissingInputError(f"no folder {source}")
    photos = sorted(
        str(PurePosixPath(Path(folder, name).relative_to(source)))
        for folder, _, names in os.walk(source)
        for name in names
        if is_image_name(name) and not name.startswith(".")
    )
    if not photos:
        raise MissingInputError(f"no photographs below {source}")
    return photos


@dataclass
class _Aligned:
    path: str
    face: Pixels
    num_faces: int


class _Worker:
    """Aligns one photograph; the reason as text when it cannot."""

    def __init__(
        self,
        source: Path,
        target: Path,
        detector: Detector,
        size: int,
        min_face: float,
        identities: dict[str, str],
    ) -> None:
        self._source, self._target = source, target
        self._detector, self._size = detector, size
        self._min_face = min_face
        self._identities = identities
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, photo: str) -> _Aligned | str:
        try:
            rgb = ANY_IMAGE.decode((self._source / photo).read_bytes())
            faces = self._detector(rgb, photo)
            if not faces:
                return "no face"
            face = max(faces, key=_extent)
            check_points(face.points, rgb.shape[0], rgb.shape[1], self._min_face)
            aligned = align(rgb, face.points, self._size)
            path = self._path(photo, face)
        except InputError as error:
            return str(error)
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        file = self._target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode_jpeg(aligned))
        return _Aligned(path, aligned, len(faces))

    def _path(self, photo: str, face: Face) -> str:
        place = PurePosixPath(photo)
        identity = self._identities.get(photo, self._identities.get(place.name, face.identity))
        if identity is None and len(place.parts) < 2:
            raise InputError(
                "no identity: it lies in no folder, and neither --identities nor the landmarks "
                "name one"
            )
        folder = PurePosixPath(str(place.parent)) if identity is None else PurePosixPath(identity)
        if folder.is_absolute() or ".." in folder.parts:
            raise InputError(f"identity {identity!r} is no name of a folder")
        path = str(folder / f"{place.stem}.jpg")
        with self._lock:
            if path in self._taken:
                raise InputError(f"another photograph became {path} already")
            self._taken.add(path)
        return path


def _in_order(worker: _Worker, photos: list[str]) -> Iterator[tuple[str, _Aligned | str]]:
    """Outcomes in the order of the photographs, a bounded number of them ahead."""
    cv2.setNumThreads(1)
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[str, Future[_Aligned | str]]] = deque()
        for photo in photos:
            ahead.append((photo, pool.submit(worker, photo)))
            if len(ahead) > 4 * workers:
                first, future = ahead.popleft()
                yield first, future.result()
        for first, future in ahead:
            yield first, future.result()


def _extent(face: Face) -> float:
    return float(np.ptp(face.points, axis=0).max())
