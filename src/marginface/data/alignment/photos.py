"""Align a folder of photographs: every face warped onto the template, or rejected with a reason."""

import os
import re
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from marginface.data.alignment.detectors import Detector, NoFaceError
from marginface.data.alignment.faces import FaceFinder
from marginface.data.alignment.landmarks import for_photos
from marginface.data.alignment.mean_face import LEAST_LIKENESS, LEAST_LIKENESS_OF_FEW, likeness
from marginface.data.alignment.template import POINTS_ARE_WRONG, template
from marginface.data.image_files import photos_and_others, read_image_file
from marginface.data.images import ImageRules, Pixels, encode_jpeg, resize_and_center_crop
from marginface.utils.console import rank_zero_warn
from marginface.utils.errors import InputError
from marginface.utils.files import one_writer_of, write_json

ACQUISITION = ".acquisition.json"  # beside the faces: how many photographs gave none, and why
_NUMBERS = re.compile(r"(?<![a-wyz\d])\d+")  # not that of uint16, but both of 90x80
_EXAMPLES = 48  # aligned faces that the report shows
_ENOUGH, _FEWEST = 8, 4  # faces, whose mean shows whether they are aligned


@dataclass
class AlignResult:
    """What became of the photographs.

    Attributes:
        aligned: path of the aligned face by photograph, both relative.
        rejected: reason by photograph.
        several: photographs with more than one face, of which the largest was taken.
        centered: photographs without a face of which the center was taken.
        mean: (S, S, 3) float, the mean aligned face.
        examples: some aligned faces.
    """

    aligned: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    several: list[str] = field(default_factory=list)
    centered: list[str] = field(default_factory=list)
    mean: NDArray[np.float64] | None = None
    examples: list[Pixels] = field(default_factory=list)

    def by_reason(self) -> dict[str, list[str]]:
        """Rejected photographs by reason, the most frequent one first; numbers in it left out."""
        found: dict[str, list[str]] = {}
        for photo, reason in self.rejected.items():
            plain = _NUMBERS.sub("#", reason.split(" (")[0])
            found.setdefault(plain, []).append(photo)
        return dict(sorted(found.items(), key=lambda entry: -len(entry[1])))


def align_photos(
    source: str | Path,
    target: str | Path,
    detector: Detector,
    *,
    size: int = 112,
    min_face: float = 10.0,
    identities: dict[str, str] | None = None,
    exif: Literal["apply", "ignore"] = "apply",
    missing: Literal["skip", "center"] = "skip",
    faulty: Literal["stop", "skip"] = "skip",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> AlignResult:
    """Write the aligned face of every photograph below `source` into the new folder `target`.

    A photograph identity/name.png becomes identity/name.jpg, unless `identities` names the person;
    one outside any folder goes to the identity the landmark file gives it. `target` appears
    when all are done.

    Args:
        source: folder with photographs, in folders or not.
        target: a folder that does not exist or is empty.
        detector: finds the faces in a photograph; the largest of several is taken.
        size: S, side of the aligned faces; a multiple of 112 or 128.
        min_face: pixels of the photograph between the eyes or from eyes to mouth; smaller faces
            are rejected.
        identities: identity by photograph.
        exif: whether photographs are turned as their EXIF orientation says.
        missing: photographs without a face are rejected, or their center is cut out, for protocols
            that need every image.
        faulty: a photograph that cannot be read stops everything, or is rejected.
        on_progress: called with the photographs done and all of them.

    Raises:
        MissingInputError: no folder `source`, or no photograph in it.
        InputError: a target that is not empty, a size without template, no face, no space, or a
            faulty photograph.
    """
    source, target = Path(source), Path(target).absolute()
    template(size)
    photos, others = photos_and_others(source)
    _name_other_files(source, others)
    _check_target(target)
    rules = ImageRules(size=None, alpha="drop", exif=exif)
    finder = FaceFinder(detector, size, min_face=min_face)
    worker = _Worker(source, finder, rules, missing, faulty)
    of_photos = for_photos(identities or {}, photos, "the list of identities")
    with one_writer_of(target):
        _check_target(target)  # once more: another process may have been faster
        return _write_faces(worker, photos, target, of_photos, size, on_progress)


def _check_target(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists; choose another name, nothing is overwritten")


def _write_faces(
    worker: "_Worker",
    photos: list[str],
    target: Path,
    identities: dict[str, str],
    size: int,
    on_progress: Callable[[int, int], None],
) -> AlignResult:
    """Align and write all photographs; `target` appears when all are done."""
    partial = target.with_name(f".{target.name}.aligning")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir(parents=True)
    writer = _FaceWriter(partial, identities, size)
    try:
        for number, (photo, outcome) in enumerate(_in_order(worker, photos), start=1):
            writer.write(photo, outcome)
            on_progress(number, len(photos))
        result = writer.finish()
        reasons = {reason: len(names) for reason, names in result.by_reason().items()}
        # For evaluations of these faces: who is missing counts, too.
        write_json(partial / ACQUISITION, {"photographs": len(photos), "rejected": reasons})
        partial.replace(target)
        _check_result(result)
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def _name_other_files(source: Path, others: list[str]) -> None:
    """Say which files are not looked at: someone may miss the faces in them."""
    if others:
        kinds = Counter(PurePosixPath(name).suffix.lower() or "no ending" for name in others)
        counted = ", ".join(f"{kind} ({number})" for kind, number in kinds.most_common(8))
        first = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        rank_zero_warn(
            f"{source}: {len(others)} files were not looked at: by their endings they are no "
            f"images that are read here. {counted}: {first}"
        )


def _check_result(result: AlignResult) -> None:
    """Warnings, with figures, of points that are not those of the faces."""
    at_points = len(result.aligned) - len(result.centered)
    if at_points >= _FEWEST:
        assert result.mean is not None
        like = likeness(result.mean)
        if like <= (LEAST_LIKENESS if at_points >= _ENOUGH else LEAST_LIKENESS_OF_FEW):
            rank_zero_warn(
                f"the mean of the {at_points} aligned faces shows no face on the template: its "
                f"correlation with one is {like:.2f}, usual is 0.3 to 0.55. The points may be "
                "those of other photographs, of another image size, or of a part of the photograph"
            )
    total = len(result.aligned) + len(result.rejected)
    for reason, photos in result.by_reason().items():
        of_points = reason.startswith(POINTS_ARE_WRONG)
        if len(photos) > (0.1 if of_points else 0.5) * total:
            rank_zero_warn(
                f"{len(photos)} of {total} photographs were rejected for one reason: {reason}"
                + (": are the points those of these photographs?" if of_points else "")
            )


class _FaceWriter:
    """Writes aligned faces into the folder of their identity, and keeps account.

    Args:
        folder: of the identities.
        whose: identity by photograph, where the user names one.
        size: S of the aligned faces.
    """

    def __init__(self, folder: Path, whose: dict[str, str], size: int) -> None:
        self._folder, self._whose = folder, whose
        self._result = AlignResult()
        self._total = np.zeros((size, size, 3))

    def write(self, photo: str, outcome: "_Aligned | str") -> None:
        """Write the face of a photograph, or note why there is none."""
        result = self._result
        try:
            if isinstance(outcome, str):
                raise InputError(outcome)
            path = _path(photo, self._whose.get(photo), outcome.identity)
            target = self._folder / path
            if target.exists():
                raise InputError(f"another photograph became {path} already")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(outcome.encoded)
        except InputError as error:
            result.rejected[photo] = str(error)
            return
        result.aligned[photo] = path
        if outcome.num_faces:
            self._total += outcome.pixels
        else:
            result.centered.append(photo)
        if outcome.num_faces > 1:
            result.several.append(photo)
        if len(result.examples) < _EXAMPLES:
            result.examples.append(outcome.pixels)

    def finish(self) -> AlignResult:
        """What became of all photographs; InputError when no face was aligned."""
        result = self._result
        if not result.aligned:
            photo, reason = next(iter(result.rejected.items()))
            raise InputError(f"no face was aligned; the first photograph, {photo}: {reason}")
        result.mean = self._total / max(len(result.aligned) - len(result.centered), 1)
        return result


@dataclass
class _Aligned:
    pixels: Pixels
    encoded: bytes
    num_faces: int  # that were found; 0: the center of a photograph
    identity: str | None = None


@dataclass
class _Worker:
    """Aligns one photograph; the reason as text when it cannot."""

    source: Path
    finder: FaceFinder
    rules: ImageRules
    missing: Literal["skip", "center"]
    faulty: Literal["stop", "skip"]

    def __call__(self, photo: str) -> _Aligned | str:
        try:
            rgb = self.rules.decode(read_image_file(self.source, photo))
        except InputError as error:
            if self.faulty == "stop":
                raise InputError(f"{self.source / photo}: {error}") from error
            return str(error)
        try:
            face = self.finder(rgb, photo)[0]
        except NoFaceError as error:
            if self.missing == "skip":
                return str(error)
            center = resize_and_center_crop(rgb, self.finder.size)
            return _Aligned(center, encode_jpeg(center), 0)
        except InputError as error:
            return str(error)
        return _Aligned(face.pixels, encode_jpeg(face.pixels), face.found, face.identity)


def _path(photo: str, given: str | None, from_landmarks: str | None) -> str:
    """Where the aligned face goes, relative to the target."""
    place = PurePosixPath(photo)
    in_folder = str(place.parent) if len(place.parts) > 1 else None
    identity = given or in_folder or from_landmarks
    if not identity:
        raise InputError(
            "no identity: it is not in a folder, and --identities and landmarks do not name one"
        )
    folder = PurePosixPath(identity)
    if folder.is_absolute() or ".." in folder.parts:
        raise InputError(f"identity {identity!r} is not a name of a folder")
    return str(folder / f"{place.stem}.jpg")


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
