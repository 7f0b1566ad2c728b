"""Embeddings of many photographs in a file, written in parts so that a run can be resumed."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from marginface.data.alignment.detectors import yunet_file
from marginface.inference.gallery_binding import bound_to
from marginface.inference.model import Model, checked_options
from marginface.inference.photographs import Faces, join_faces_of
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.files import atomic_write, read_json, write_json
from marginface.utils.hashes import short_hash
from marginface.utils.optional_packages import require_package
from marginface.utils.text_table import readable

SUFFIXES = (".npz", ".parquet")
_PART = 256  # photographs; what a stopped run does again
_KEY = "of.json"


def embed_to_file(
    model: Model,
    root: Path,
    photos: list[str],
    target: Path,
    *,
    subjects: list[str] | None = None,
    resume: bool = False,
    batch_size: int = 64,
    on_photo: Callable[[int], None] = lambda done: None,
    **options: Any,
) -> Faces:
    """Write the faces of photographs to a .npz or .parquet file, see `Faces`.

    Args:
        model: embeds them.
        root: folder that paths are relative to.
        photos: paths.
        target: new file.
        subjects: of each photograph, to be written as well.
        resume: go on where a stopped run was.
        batch_size: faces that are embedded at once.
        on_photo: called with the number of photographs done.
        options: other `PhotoOptions` than the model's.

    The file can be read by its owner alone: embeddings are biometric data.

    Raises:
        InputError: a target that exists, the parts of another run, or no space.
    """
    if target.suffix not in SUFFIXES:
        raise InputError(f"{target}: embeddings are written as .npz or .parquet")
    if target.suffix == ".parquet":
        require_package("pyarrow", extra="parquet")
    if target.exists():
        raise InputError(f"{target} exists; choose another name, nothing is overwritten")
    if not target.parent.is_dir():
        raise MissingInputError(f"no folder {target.parent} for {target.name}; make it first")
    finder = model.finder([str(root / photo) for photo in photos], **options)
    folder = target.with_name(f"{target.name}.parts")
    done = _begin(folder, _key(model, root, photos, options), resume, target)
    try:
        for at in range(0, len(photos), _PART):
            number = at // _PART
            if number not in done:
                some = [str(root / photo) for photo in photos[at : at + _PART]]
                stream = model.embed_stream(
                    some, finder, batch_size=batch_size, on_photo=lambda n, at=at: on_photo(at + n)
                )
                part = join_faces_of(list(stream), model.embedding_size)
                _save(folder / f"{number:06d}.npz", replace(part, number=part.number + at))
            on_photo(min(at + _PART, len(photos)))
        parts = [_load(path) for path in sorted(folder.glob("*.npz"))]
        faces = join_faces_of(parts, model.embedding_size)
        faces = replace(faces, photo=np.array(photos)[faces.number])
        _write(target, faces, model, subjects)
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"cannot write {target}: {error.strerror or error}; what is done is kept in {folder}"
        ) from error
    shutil.rmtree(folder)
    return faces


def _key(model: Model, root: Path, photos: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """All that the rows depend on, so that a file never has rows of two kinds."""
    finding = replace(model.photos, **checked_options(dict(options)))
    files = [finding.landmarks, *(root / photo for photo in photos)]
    if finding.landmarks is None and finding.detector == "yunet":
        files.append(yunet_file(finding.yunet))
    return {
        "model": bound_to(model),
        "execution": model.execution,
        "finding": {key: _words_of(value) for key, value in vars(finding).items()},
        "photos": short_hash("\n".join(map(_state_of, files)), 32),
    }


def _words_of(value: Any) -> str:
    """An option in words that are the same in every process; of code its name."""
    if not callable(value):
        return str(value)
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _state_of(path: Any) -> str:
    """A file by name, size and time; unequal after it was written again."""
    try:
        state = os.stat(path)
    except (OSError, TypeError):
        return f"{path}"
    return f"{path} {state.st_size} {state.st_mtime_ns}"


def _begin(folder: Path, key: dict[str, Any], resume: bool, target: Path) -> set[int]:
    """Numbers of the parts that are there."""
    path = folder / _KEY
    if not folder.exists():
        folder.mkdir(mode=0o700)
        write_json(path, key)
        return set()
    found = {int(part.stem) for part in folder.glob("*.npz") if part.stem.isdigit()}
    if not resume:
        raise InputError(
            f"{folder} holds {len(found)} parts of a run that was stopped; --resume goes on with "
            f"it, or remove the folder to begin again"
        )
    if read_json(path) != key:
        raise InputError(
            f"{folder} is of another model, other photographs or other options; remove it to begin "
            f"again, or write to another file than {target.name}"
        )
    return found


def _save(path: Path, faces: Faces) -> None:
    with atomic_write(path, private=True) as file:
        np.savez(file, **vars(faces))


def _load(path: Path) -> Faces:
    with np.load(path, allow_pickle=False) as content:
        return Faces(**{name: content[name] for name in content.files})


def _write(target: Path, faces: Faces, model: Model, subjects: list[str] | None) -> None:
    columns: dict[str, Any] = {"path": faces.photo}
    if subjects is not None:
        columns["subject"] = np.array(subjects)[faces.number]
    columns |= {name: vars(faces)[name] for name in ("face", "status", "points", "score", "norm")}
    columns["embeddings"] = faces.embedding
    about = {"digest": model.digest, "flip": model.flip, "embedding_size": model.embedding_size}
    with atomic_write(target, private=True) as file:
        if target.suffix == ".npz":
            np.savez(file, about=np.array(json.dumps(about)), **columns)
        else:
            _write_parquet(file, columns, about)


def _write_parquet(file: Any, columns: dict[str, Any], about: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {
        name: pa.array([readable(v) if isinstance(v, str) else v for v in column.tolist()])
        if column.ndim == 1
        else pa.FixedSizeListArray.from_arrays(
            pa.array(column.reshape(-1)), int(np.prod(column.shape[1:]))
        )
        for name, column in columns.items()
    }
    table = pa.table(arrays).replace_schema_metadata({"marginface": json.dumps(about)})
    pq.write_table(table, file)
