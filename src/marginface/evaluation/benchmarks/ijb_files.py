"""The files of IJB-B and IJB-C as they are published."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marginface.data.alignment.point_reading import check_order
from marginface.data.image_files import visible
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.text_table import read_table

Ints = NDArray[np.int64]
_BLOCK = 1 << 24


class Media(NamedTuple):
    """Images of a set: names, template and medium of each, five points, detector score."""

    images: list[str]
    template_id: Ints
    media_id: Ints
    points: NDArray[np.float64]  # (N, 5, 2)
    detector_score: NDArray[np.float64]


class Subjects(NamedTuple):
    """Templates of a gallery or of probes, and whose they are."""

    template_id: Ints
    subject_id: Ints


def find_meta(root: Path, suffix: str) -> Path | None:
    """The one file `*suffix` in root/meta or root.

    Raises:
        MissingInputError: no folder `root`.
        InputError: several.
    """
    if not root.is_dir():
        raise MissingInputError(f"no folder {root}; root must hold meta/ and loose_crop/")
    found = visible(root, f"meta/*{suffix}", f"*{suffix}")
    if len(found) > 1:
        raise InputError(
            f"{root} holds several files *{suffix}: {', '.join(p.name for p in found)}"
        )
    return found[0] if found else None


def needed_meta(root: Path, suffix: str) -> Path:
    """The same; MissingInputError when there is none."""
    path = find_meta(root, suffix)
    if path is None:
        raise MissingInputError(f"no file *{suffix} in {root / 'meta'} or {root}")
    return path


def read_media(root: Path) -> Media:
    """*_face_tid_mid.txt (`image template medium`) and *_name_5pts_score.txt (`image x1 y1 ...`).

    Raises:
        MissingInputError, InputError: a file that is not there or holds something else, or an
            image without points.
    """
    media = needed_meta(root, "_face_tid_mid.txt")
    images, ids = _table(media, 2, "image template_id media_id", np.int64)
    landmarks = needed_meta(root, "_name_5pts_score.txt")
    names, values = _table(landmarks, 11, "image x1 y1 ... x5 y5 score")
    if names != images:  # another order: by name
        place = {name: row for row, name in enumerate(names)}
        if len(place) < len(names):
            raise InputError(f"{landmarks} names an image twice and has another order than {media}")
        missing = [name for name in images if name not in place]
        if missing:
            raise InputError(
                f"{landmarks} has no points for {missing[0]} ({len(missing)} of the "
                f"{len(images)} images in {media})"
            )
        values = values[[place[name] for name in images]]
    points = values[:, :10].reshape(-1, 5, 2)
    in_one_place = np.ptp(points, axis=1).max(1) <= 0
    if in_one_place.any():
        raise InputError(
            f"{landmarks}: all points of {images[in_one_place.argmax()]} are in one place"
        )
    check_order(points, str(landmarks))
    return Media(images, ids[:, 0], ids[:, 1], points, values[:, 10])


def read_template_pairs(path: Path) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """*_template_pair_label.txt: both templates of each pair and whether they are of one person.

    Raises:
        InputError: a line that is not `template1 template2 label` with label 0 or 1.
    """
    parts, rest = [], b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            end = block.rfind(b"\n") + 1
            parts.append(_whole_numbers(rest + block[:end], path))
            rest = block[end:]
    parts.append(_whole_numbers(rest, path))
    table = np.concatenate(parts)
    if not len(table):
        raise InputError(f"{path} lists no pairs")
    label = table[:, 2]
    if ((label != 0) & (label != 1)).any():
        row = int(((label != 0) & (label != 1)).argmax())
        raise InputError(f"{path}: pair {row} has label {label[row]}; expected 0 or 1")
    return table[:, 0].copy(), table[:, 1].copy(), label == 1


def read_subjects(path: Path) -> Subjects:
    """A 1:N file: csv with the columns TEMPLATE_ID and SUBJECT_ID, below a line of headings.

    A template that is listed again (once an image, as in the official files) counts once.

    Raises:
        InputError: other columns, another value, or a template of two subjects.
    """
    table = read_table(
        path, lambda fields, others: bool({"template_id", "subject_id"} & set(fields))
    )
    if table.headings is None:
        first = table.lines[0].text if table.lines else ""
        raise InputError(f"{path}: no columns TEMPLATE_ID and SUBJECT_ID, got {first!r}")
    rows = table.by_heading({"template_id": (), "subject_id": ()})
    subjects: dict[int, int] = {}
    for line, row in zip(table.lines, rows, strict=True):
        try:
            template, subject = int(np.int64(row[0])), int(np.int64(row[1]))
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"{path}: line {line.number} is not two whole numbers: {row}"
            ) from error
        if subjects.setdefault(template, subject) != subject:
            raise InputError(
                f"{path}: line {line.number} gives template {template} a second subject"
            )
    if not subjects:
        raise InputError(f"{path} lists no templates")
    return Subjects(np.array(list(subjects), np.int64), np.array(list(subjects.values()), np.int64))


def _table(
    path: Path, numbers: int, expected: str, kind: type = np.float64
) -> tuple[list[str], NDArray[Any]]:
    """A name and some numbers a line."""
    names: list[str] = []
    values: list[tuple[str, ...]] = []
    for line in read_table(path).lines:
        if len(line.fields) != numbers + 1:
            raise InputError(f"{path}: line {line.number} is not '{expected}': {line.text[:100]!r}")
        names.append(line.fields[0])
        values.append(line.fields[1:])
    if not names:
        raise InputError(f"{path} lists no images")
    try:
        table: NDArray[Any] = np.array(values).astype(kind)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: expected lines '{expected}': {error}") from error
    if not np.isfinite(table).all():
        row = int((~np.isfinite(table).all(1)).argmax())
        raise InputError(f"{path}: {names[row]} has a number that is not finite")
    return names, table


def _whole_numbers(text: bytes, path: Path) -> Ints:
    """Lines of three whole numbers; one NumPy call, because there are 16 million."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy warns where it stops reading
            numbers = np.fromstring(text.decode("ascii"), np.int64, sep=" ")
    except (DeprecationWarning, ValueError, OverflowError) as error:
        raise InputError(f"{path}: expected lines 'template1 template2 label'") from error
    lines = sum(1 for line in text.split(b"\n") if line.strip()) if text.strip() else 0
    if len(numbers) != 3 * lines or (numbers == np.iinfo(np.int64).max).any():
        raise InputError(
            f"{path}: expected three whole numbers a line, got {len(numbers)} in {lines} lines"
        )
    return numbers.reshape(-1, 3)
