"""Photographs to embeddings: found, aligned and embedded, each step while others go on."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from marginface.data.alignment.faces import AlignedFace, FaceFinder
from marginface.data.image_files import (
    SUFFIXES,
    find_photos,
    found_below,
    is_image_name,
    read_image_file,
)
from marginface.data.image_list import read_image_list
from marginface.data.images import ANY_IMAGE
from marginface.inference.embedder import Embedder
from marginface.inference.pixels import check_photo
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.text_table import read_table, readable

OK = "ok"
_HEADINGS = ("path", "photo", "photograph", "file", "image")
_SETTING = "put the list there, paths are relative to its folder; or an absolute path"
Photo = str | Path | NDArray[np.uint8]
_NO_POINTS = np.full((5, 2), np.nan)


@dataclass(frozen=True)
class Faces:
    """Faces of photographs, a row each; a photograph without a usable face has a row as well.

    Attributes:
        number: (N,) place of the photograph among those that were given.
        photo: (N,) its path, or "array 0" and so on.
        face: (N,) number of the face within it, 0 for the largest.
        status: (N,) "ok", or why there is no embedding.
        points: (N, 5, 2) in pixels of the photograph; NaN where it was aligned already.
        score: (N,) of the detector; NaN where it tells none.
        norm: (N,) length of the embedding before it became 1; NaN where a graph hides it.
        embedding: (N, D) float32 of unit length; NaN where there is none.
    """

    number: NDArray[np.int64]
    photo: NDArray[np.str_]
    face: NDArray[np.int64]
    status: NDArray[np.str_]
    points: NDArray[np.float32]
    score: NDArray[np.float32]
    norm: NDArray[np.float32]
    embedding: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.photo)

    @property
    def found(self) -> NDArray[np.bool_]:
        """(N,) whether a row has an embedding."""
        mask: NDArray[np.bool_] = self.status == OK
        return mask

    def take(self, rows: Any) -> "Faces":
        """Some of the rows."""
        return Faces(**{name: column[rows] for name, column in vars(self).items()})


def one_or_several(photos: Any) -> list[Photo]:
    """A list of photographs, of one of them or of several.

    Raises:
        InputError: something else, such as a picture of another library.
    """
    if isinstance(photos, str | Path) or hasattr(photos, "dtype"):
        return [photos]
    if hasattr(photos, "convert") or not isinstance(photos, Iterable):
        raise InputError(
            f"a photograph is a path or an array, got {type(photos).__name__}; of Pillow's images "
            "np.asarray(image.convert('RGB'))"
        )
    return list(photos)


def join_faces_of(parts: Sequence[Faces], width: int) -> Faces:
    """All rows of several, with embeddings of `width` numbers."""
    columns = {name: [vars(part)[name] for part in parts] for name in vars(parts[0])}
    # A part without any face does not know how long embeddings are.
    columns["embedding"] = [
        part if part.shape[1] else np.full((len(part), width), np.nan, np.float32)
        for part in columns["embedding"]
    ]
    return Faces(**{name: np.concatenate(column) for name, column in columns.items()})


def embed_photos(
    photos: Iterable[Photo],
    finder: FaceFinder,
    embedder: Embedder,
    *,
    batch_size: int = 64,
    on_photo: Callable[[int], None] = lambda done: None,
) -> Iterator[Faces]:
    """Rows in the order of the photographs, in parts of about a batch.

    Args:
        photos: paths, or uint8 (H, W, 3) RGB.
        finder: finds and aligns the faces.
        embedder: network for the aligned faces.
        batch_size: faces that are embedded at once.
        on_photo: called with the number of photographs done.
    """
    if batch_size < 1:
        raise InputError(f"the batch must be 1 face or more, got {batch_size}")
    rows: list[_Row] = []
    faces = 0
    for number, (name, outcome) in enumerate(_aligned(photos, finder), start=1):
        if isinstance(outcome, str):
            rows.append((number - 1, name, 0, outcome))
        else:
            rows += [(number - 1, name, place, face) for place, face in enumerate(outcome)]
            faces += len(outcome)
        if faces >= batch_size or len(rows) >= 16 * batch_size:
            yield from _embedded(rows, embedder, batch_size)
            rows, faces = [], 0
            on_photo(number)
    if rows:
        yield from _embedded(rows, embedder, batch_size)
        on_photo(number)


# Place and name of a photograph, number of the face in it, the face or why there is none.
_Row = tuple[int, str, int, AlignedFace | str]


def _embedded(rows: list[_Row], embedder: Embedder, batch_size: int) -> Iterator[Faces]:
    images = [face.pixels for *_, face in rows if not isinstance(face, str)]
    parts = [
        embed_pixels(np.stack(images[at : at + batch_size]), embedder)
        for at in range(0, len(images), batch_size)
    ]
    known = [not isinstance(face, str) for *_, face in rows]
    width = parts[0][0].shape[1] if parts else 0
    embedding = np.full((len(rows), width), np.nan, np.float32)
    norm = np.full(len(rows), np.nan, np.float32)
    if parts:
        embedding[known] = np.concatenate([part for part, _ in parts])
        norm[known] = np.concatenate([length for _, length in parts])
    faces = [AlignedFace(np.empty(0, np.uint8)) if isinstance(f, str) else f for *_, f in rows]
    yield Faces(
        np.array([number for number, *_ in rows], np.int64),
        np.array([name for _, name, *_ in rows]),
        np.array([place for *_, place, _ in rows], np.int64),
        np.array([face if isinstance(face, str) else OK for *_, face in rows]),
        np.stack([_NO_POINTS if f.points is None else f.points for f in faces]).astype(np.float32),
        np.array([np.nan if f.score is None else f.score for f in faces], np.float32),
        norm,
        embedding,
    )


def embed_pixels(
    images: NDArray[np.uint8], embedder: Embedder
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit embeddings (N, D) of aligned faces (N, S, S, 3), and the lengths they had.

    Raises:
        InputError: an embedding that is zero, NaN or infinite.
    """
    raw = embedder(torch.from_numpy(images).permute(0, 3, 1, 2)).cpu().numpy()
    norm = np.linalg.norm(raw.astype(np.float64), axis=1)
    bad = np.flatnonzero(~np.isfinite(norm) | (norm == 0))
    if len(bad):
        raise InputError(
            f"{len(bad)} of {len(images)} embeddings are zero, NaN or infinite: the network does "
            "not compute in this precision, or is not trained"
        )
    unit = (raw / norm[:, None]).astype(np.float32)
    hidden = np.full(len(norm), np.nan) if embedder.takes_bytes else norm
    return unit, hidden.astype(np.float32)


def _aligned(
    photos: Iterable[Photo], finder: FaceFinder
) -> Iterator[tuple[str, list[AlignedFace] | str]]:
    """Faces of each photograph, or why there are none; a bounded number of photographs ahead."""
    cv2.setNumThreads(1)  # each thread of ours has its own photograph
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[str, Future[list[AlignedFace] | str]]] = deque()
        for number, photo in enumerate(photos):
            name = str(photo) if isinstance(photo, str | Path) else f"array {number}"
            if not isinstance(photo, str | Path):
                photo = check_photo(photo, name)
            ahead.append((name, pool.submit(_faces_of, photo, name, finder)))
            if len(ahead) > 8 * workers:
                first, future = ahead.popleft()
                yield first, future.result()
        for first, future in ahead:
            yield first, future.result()


def _faces_of(photo: Photo, name: str, finder: FaceFinder) -> list[AlignedFace] | str:
    try:
        if isinstance(photo, str | Path):
            rgb = ANY_IMAGE.decode(read_image_file(Path(), str(photo)))
        else:
            rgb = photo
        return finder(rgb, name)
    except InputError as error:
        return str(error)


def photos_of(source: Path) -> tuple[Path, list[str], list[str] | None]:
    """Folder, paths relative to it or absolute, and the subjects of the photographs of a source.

    Args:
        source: a photograph; a folder, whose sub-folders are the subjects if all photographs are in
            some; or a list: .csv with path,subject or path alone, or a path a line.

    Raises:
        MissingInputError: nothing there.
        InputError: a list that cannot be read.
    """
    if source.is_dir():
        photos = find_photos(source)
        owners = [readable(photo.rpartition("/")[0]) for photo in photos]
        return source, photos, owners if all(owners) else None
    if not source.is_file():
        raise MissingInputError(f"no photograph, folder or list {source}")
    if source.suffix.lower() in SUFFIXES:
        return source.parent, [source.name], None
    lines = [line.text for line in read_table(source).lines]
    if lines and lines[0].lower() in _HEADINGS:
        lines = lines[1:]
    if not lines:
        raise InputError(f"{source} lists no photographs")
    if all(map(is_image_name, lines)):  # nothing but paths, with blanks perhaps
        return source.parent, found_below(source.parent, lines, source, _SETTING), None
    names, subjects, _ = read_image_list(source, "subject")
    names = found_below(source.parent, names, source, _SETTING)
    return source.parent, names, [readable(subject) for subject in subjects]
