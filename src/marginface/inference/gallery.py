"""A gallery of people to be found in: enroll, identify, remove."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from marginface.inference.enrollment import Enrollment, content_of, passed_gates
from marginface.inference.gallery_binding import bound_to, check_bound
from marginface.inference.gallery_file import GalleryFile, ImageRow
from marginface.inference.gallery_memory import GalleryMemory
from marginface.inference.gallery_opening import create_gallery_file, open_gallery_file
from marginface.inference.gallery_threshold import SearchThreshold, search_threshold
from marginface.inference.identification import Identification
from marginface.inference.model import Model
from marginface.inference.photographs import OK, Faces, Photo, one_or_several
from marginface.inference.pixels import check_aligned
from marginface.metrics.identification import search
from marginface.utils.errors import InputError, MissingInputError, RefusedError, did_you_mean
from marginface.utils.text_table import readable


class Gallery:
    """People and the embeddings of their photographs, in one file, bound to one model."""

    def __init__(self, file: GalleryFile, model: Model, keep_paths: bool) -> None:
        self._file, self.model, self.keep_paths = file, model, keep_paths
        self._kept: _Known | None = None
        self._lock = RLock()  # of the file, which one thread may exchange while others read

    @classmethod
    def open(
        cls, path: str | Path, model: Model, create: bool = False, keep_paths: bool = False
    ) -> Self:
        """Open a gallery, to be used in a `with` block.

        Args:
            path: of the file.
            model: that it was, or will be, made with.
            create: make it where it is not there.
            keep_paths: store where photographs are, for people enrolled from now on.

        Raises:
            MissingInputError: no such file.
            InputError: damaged, or of another model; see `open_gallery_file`.
        """
        path = Path(path)
        if create and not path.exists():
            if not path.parent.is_dir():
                raise MissingInputError(f"no folder {path.parent} for {path.name}; make it first")
            file = create_gallery_file(path, bound_to(model))
        else:
            file = open_gallery_file(path)
        try:
            check_bound(path, file.about(), bound_to(model))
        except BaseException:
            file.close()
            raise
        return cls(file, model, keep_paths)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._file.close()

    def __len__(self) -> int:
        """Number of people."""
        return len(self.memory.names)

    @property
    def names(self) -> list[str]:
        """Of all people, in the order they were enrolled."""
        return list(self.memory.names)

    @property
    def file(self) -> GalleryFile:
        """The file itself."""
        return self._file

    # -- enrolling -----------------------------------------------------------------------------

    def enroll(
        self,
        subject: str,
        photos: Photo | Iterable[Photo],
        force: bool = False,
        *,
        refused: Literal["stop", "skip"] = "stop",
        min_norm: float | None = None,
        **options: Any,
    ) -> Enrollment:
        """Add photographs of a person: all that are good enough, in one step.

        Args:
            subject: name; more photographs of somebody who is there are added to the others.
            photos: paths, or uint8 RGB arrays (H, W, 3); or one of them.
            force: skip every gate but unreadable input.
            refused: photographs that a gate refuses are an error, or are left out and named.
            min_norm: norm of the embedding; smaller ones are refused. The model's when not given.
            options: other `PhotoOptions` than the model's.

        Raises:
            RefusedError: a photograph that is refused, or none that is good enough.
            InputError: the gallery cannot be written.
        """
        listed = one_or_several(photos)
        if options.get("face", self.model.photos.face) == "all":
            raise InputError("enrolling wants one face a photograph, not face=all")
        if force:
            options = {"face": "largest", "min_face": 0.0, "max_misfit": np.inf} | options
        faces = self.model.embed(listed, faulty="keep", usual="only", **options)
        contents = [content_of(photo) for photo in listed]
        with self._lock:
            return self._enroll(subject, faces, contents, force, refused, min_norm)

    def enroll_aligned(
        self,
        subject: str,
        images: Any,
        force: bool = False,
        *,
        refused: Literal["stop", "skip"] = "stop",
        min_norm: float | None = None,
    ) -> Enrollment:
        """The same with aligned faces, uint8 RGB (N, S, S, 3)."""
        checked = check_aligned(images, self.model.image_size)
        units, norms = self.model.norms_aligned(checked)
        count = len(checked)
        faces = Faces(
            np.arange(count),
            np.array([f"array {n}" for n in range(count)]),
            np.zeros(count, np.int64),
            np.array([OK] * count),
            np.full((count, 5, 2), np.nan, np.float32),
            np.full(count, np.nan, np.float32),
            norms,
            units,
        )
        contents = [content_of(image) for image in checked]
        with self._lock:
            return self._enroll(subject, faces, contents, force, refused, min_norm)

    def _enroll(
        self,
        subject: str,
        faces: Faces,
        contents: list[bytes],
        force: bool,
        refused: Literal["stop", "skip"],
        min_norm: float | None,
    ) -> Enrollment:
        _check_name(subject)
        known = self._known()
        least = self.model.description.min_norm if min_norm is None else min_norm
        kept, problems = passed_gates(
            subject,
            faces,
            contents,
            known.memory,
            known.contents,
            min_norm=least,
            force=force,
        )
        if problems and (refused == "stop" or not len(kept)):
            words = "; ".join(f"{p.photo}: {p.reason}" for p in problems[:5])
            more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
            raise RefusedError(f"{subject!r} was not enrolled: {words}{more}")
        rows = [
            ImageRow(
                faces.embedding[n],
                float(faces.norm[n]),
                float(faces.score[n]),
                contents[n],
                readable(str(faces.photo[n])) if self.keep_paths else None,
            )
            for n in kept
        ]
        self._file.add(subject, rows)
        # What was known before: where another program wrote meanwhile, all is read again anyway.
        known.memory.add(subject, faces.embedding[kept])
        known.contents.update({contents[n]: subject for n in kept})
        known.thresholds.clear()
        return Enrollment(subject, len(rows), problems)

    def remove(self, subject: str) -> int:
        """Forget a person: nothing of the vectors is left in the file. Returns how many.

        Raises:
            InputError: nobody has the name.
        """
        with self._lock:
            self._renew()
            count = self._file.remove(subject)
            self._kept = None
        if not count:
            raise InputError(f"nobody is called {subject!r}.{did_you_mean(subject, self.names)}")
        return count

    # -- identifying ---------------------------------------------------------------------------

    def identify(
        self,
        photo: Photo,
        fpir: float = 0.01,
        threshold: float | None = None,
        top: int = 5,
        **options: Any,
    ) -> list[Identification]:
        """Who the faces in a photograph are, one answer per face, largest first.

        Args:
            photo: path, or uint8 RGB array (H, W, 3).
            fpir: false positive identification rate in (0, 1): the share of strangers that may be
                given a name.
            threshold: a cosine instead.
            top: candidates that are named.
            options: other `PhotoOptions` than the model's; all faces are taken unless they say.

        Raises:
            InputError: an empty gallery, no face, or a rate that nothing supports.
        """
        faces = self.model.embed(photo, **options)
        limit = self.threshold(fpir, threshold).cosine
        return self.identify_faces(faces, limit, top)

    def identify_aligned(
        self, images: Any, fpir: float = 0.01, threshold: float | None = None, top: int = 5
    ) -> list[Identification]:
        """The same for aligned faces, uint8 RGB (N, S, S, 3); one answer per image."""
        units = self.model.embed_aligned(images)
        return self._identify(units, self.threshold(fpir, threshold).cosine, top)

    def identify_faces(self, faces: Faces, limit: float, top: int = 5) -> list[Identification]:
        """The same for faces that are embedded; others are left out."""
        known = faces.take(faces.found)
        return [
            replace(
                answer,
                photo=str(known.photo[n]),
                face=int(known.face[n]),
                points=None if np.isnan(known.points[n]).any() else known.points[n],
            )
            for n, answer in enumerate(self._identify(known.embedding, limit, top))
        ]

    def _identify(self, units: NDArray[np.float32], limit: float, top: int) -> list[Identification]:
        if top < 1:
            raise InputError(f"--top must be 1 or more, got {top}")
        if not len(units):
            return []
        names = self._not_empty()
        scores, places = search(
            torch.from_numpy(units), self.memory.templates, min(top, len(names))
        )
        answers = []
        for row, place in zip(scores.tolist(), places.tolist(), strict=True):
            candidates = [(names[p], s) for p, s in zip(place, row, strict=True)]
            found = candidates[0][0] if row[0] >= limit else None
            answers.append(Identification(found, row[0], limit, candidates))
        return answers

    def threshold(self, fpir: float = 0.01, threshold: float | None = None) -> SearchThreshold:
        """The cosine from which on somebody is found, and where it comes from.

        Raises:
            InputError: an empty gallery, or a rate that neither gallery nor model supports.
        """
        self._not_empty()
        if threshold is not None:
            if not -1 <= threshold <= 1:
                raise InputError(f"a threshold is a cosine, -1 to 1, got {threshold}")
            return SearchThreshold(threshold, None, "given", len(self))
        known = self._known()
        if fpir not in known.thresholds:
            known.thresholds[fpir] = search_threshold(known.memory, self.model, fpir)
        return known.thresholds[fpir]

    def _not_empty(self) -> list[str]:
        if not self.memory.names:
            raise InputError(f"{self._file.path} is empty; enroll somebody first")
        return self.memory.names

    # -- in memory -----------------------------------------------------------------------------

    @property
    def memory(self) -> GalleryMemory:
        """Everybody, as they are searched; read again when another program changed the file."""
        return self._known().memory

    def _renew(self) -> None:
        """Open the file that is in the place of this one, if another program put one there."""
        if not self._file.was_replaced():
            return
        file = open_gallery_file(self._file.absolute)
        try:
            check_bound(file.path, file.about(), bound_to(self.model))
        except BaseException:
            file.close()
            raise
        self._file.close()
        self._file, self._kept = file, None

    def _known(self) -> "_Known":
        with self._lock:
            self._renew()
            version = self._file.version()
            if self._kept is None or self._kept.version != version:
                width = self.model.embedding_size
                memory = GalleryMemory(self._file.rows(width), width, self._file.path)
                self._kept = _Known(version, memory, self._file.contents(), {})
            return self._kept


@dataclass(frozen=True)
class _Known:
    """What was read of a file, at one of its versions."""

    version: int
    memory: GalleryMemory
    contents: dict[bytes, str]
    thresholds: dict[float, SearchThreshold]


def _check_name(subject: str) -> None:
    if not isinstance(subject, str) or not subject.strip():
        raise RefusedError(f"a person needs a name, got {subject!r}")
    try:
        subject.encode()
    except UnicodeEncodeError as error:
        raise RefusedError(
            f"the name {readable(subject)!r} is no UTF-8; write it in UTF-8"
        ) from error
