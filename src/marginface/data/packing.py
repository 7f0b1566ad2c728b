"""Write any dataset in another format: streaming, resumable, and whole or not at all."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from marginface.data.dataset import FaceDataset
from marginface.data.formats import Writer, writer_class
from marginface.data.images import ANY_IMAGE
from marginface.data.pairs.files import write_pair_file
from marginface.data.pairs.verification_sets import load_pairs
from marginface.utils.console import print_warning
from marginface.utils.errors import InputError

Faulty = Literal["stop", "skip", "copy"]
_PROGRESS = "pack.json"


def pack(
    source: FaceDataset,
    target: str | Path,
    format: str,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    faulty: Faulty = "stop",
) -> int:
    """Write `source` as `format` into the new folder `target`; returns the images left out.

    Images are copied byte for byte, ordered by identity. They are written into a neighbor of
    `target`, which is renamed at the end: `target` is whole or not there. After an interruption
    the same call compares what the neighbor holds with the source and continues from there.

    Args:
        source: what to write.
        target: a folder that does not exist or is empty.
        format: recordio, folder, list or lmdb.
        on_progress: called with the images done and all of them.
        faulty: stop at an image that cannot be decoded, skip it, or copy all without looking.

    Raises:
        InputError: an unknown format, a target that is not empty, a faulty image, or no space left.
    """
    target = Path(target).absolute()
    writer_type = writer_class(format)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists; choose another name, nothing is overwritten")
    order = np.argsort(source.labels, kind="stable").tolist()
    partial = target.with_name(f".{target.name}.partial")
    try:
        with _begun(partial, {"format": format, "source": source.fingerprint()}):
            writer = writer_type(partial, source, order)
            try:
                skipped = _write_all(writer, source, order, on_progress, faulty)
                writer.finish()
            finally:
                writer.close()
            _publish(partial, target)
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"packing into {target} stopped: {error.strerror or error}. {partial} holds what is "
            "done; make room (or fix the cause) and repeat the command to continue"
        ) from error
    return skipped


def pack_pairs(source: str | Path, target: str | Path, *, root: str | Path | None = None) -> int:
    """Write verification pairs of any format into a .bin file; returns the number of pairs.

    Args:
        source: a file of pairs, see `load_pairs`.
        target: a new file.
        root: folder of the images that a list names.

    Raises:
        InputError: a file that cannot be read, or written.
    """
    pairs = load_pairs(source, root=root)
    images = (pairs.image_bytes(i) for i in range(len(pairs)))
    try:
        write_pair_file(Path(target), images, pairs.same.tolist())
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot write {target}: {error.strerror}") from error
    return len(pairs.same)


def _write_all(
    writer: Writer,
    source: FaceDataset,
    order: list[int],
    on_progress: Callable[[int, int], None],
    faulty: Faulty,
) -> int:
    written = 0
    kept = np.zeros(source.num_classes, bool)
    for number, index in enumerate(order):
        image = _checked(source, index, faulty)
        if image is not None:
            if written >= writer.done:
                writer.write(number, image)
            elif not writer.holds(number, image):
                raise InputError(
                    f"what was packed before differs from {source.describe(index)}: the source "
                    "was changed or images were skipped differently; remove the hidden .partial "
                    "folder next to the target to begin anew"
                )
            written += 1
            kept[source.labels[index]] = True
        if number % 100 == 99 or number + 1 == len(order):
            on_progress(number + 1, len(order))
    lost = np.setdiff1d(source.labels, np.flatnonzero(kept))
    if len(lost):
        raise InputError(
            f"identity {source.identity(int(lost[0]))} of {source.where} has no image that can be "
            "read; remove it there"
        )
    return len(order) - written


def _checked(source: FaceDataset, index: int, faulty: Faulty) -> bytes | None:
    """The bytes of an image, None for one to skip."""
    try:
        image = source.image_bytes(index)
        if not image:
            raise InputError("no bytes")
        if faulty != "copy":
            ANY_IMAGE.decode(image)
    except InputError as error:
        if faulty == "skip":
            print_warning(f"left out: {source.describe(index)}: {error}")
            return None
        raise InputError(
            f"{source.describe(index)}: {error}; fix or remove it, or leave such images out with "
            "--faulty skip"
        ) from error
    return image


@contextmanager
def _begun(partial: Path, description: dict[str, Any]) -> Iterator[None]:
    """The folder, made or found to be begun for the same, and kept from other processes."""
    partial.mkdir(parents=True, exist_ok=True)
    path = partial / _PROGRESS
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process is writing {partial}; wait for it") from error
        file.seek(0)
        text, wanted = file.read(), json.dumps(description)
        if text and text != wanted:
            raise InputError(
                f"{partial} was begun from other data or for another format; remove it to begin "
                "anew"
            )
        if not text:
            file.write(wanted)
            file.flush()
        yield


def _publish(partial: Path, target: Path) -> None:
    """Everything onto the disk, then the name: only then is the description gone."""
    for folder, _, names in os.walk(partial):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                os.fsync(file.fileno())
    (partial / _PROGRESS).unlink()
    partial.replace(target)
