"""Landmark files, five points a face: csv, CelebA's list, insightface's two kinds."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np

from marginface.data.alignment.point_order import in_order
from marginface.data.alignment.template import Points
from marginface.utils.errors import InputError, MissingInputError

T = TypeVar("T")


class DetectedFace(NamedTuple):
    """A face in a photograph.

    Attributes:
        points: (5, 2) in pixels, see `alignment.template.Points`.
        score: of the detector, when known.
        identity: when the file states it.
    """

    points: Points
    score: float | None = None
    identity: str | None = None


def read_landmarks(path: str | Path, order: str = "auto") -> dict[str, list[DetectedFace]]:
    """Faces by photograph, as the file names them.

    Lines are `path,x1,y1,...,x5,y5` (csv, with or without a line of headings; columns `identity`,
    `label` and `score` may follow), CelebA's and insightface's `name x1 y1 ... x5 y5 [score]`, or
    insightface's lst, `aligned<TAB>path<TAB>label<TAB>box (4)<TAB>x1..x5<TAB>y1..y5`.

    Args:
        order: of the coordinates but in the lst, see `point_order.in_order`.

    Raises:
        MissingInputError: no such file.
        InputError: a line of no known kind, or points that fit in another order only.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"no landmark file {path}")
    read: list[tuple[str, DetectedFace]] = []
    open_order: list[int] = []  # faces of which the file does not say it
    headings: list[str] = []
    for number, fields in enumerate(_rows(path), start=1):
        if number <= 2 and _is_heading(fields):
            headings = [field.strip().lower() for field in fields]
            continue
        try:
            name, face = _face(fields, headings)
        except (ValueError, IndexError) as error:
            raise InputError(
                f"{path}: line {number} does not hold a name and five points "
                f"(x1 y1 ... x5 y5): {' '.join(fields)[:100]!r}"
            ) from error
        if not _is_lst(fields):
            open_order.append(len(read))
        read.append((_plain_path(name), face))
    if not read:
        raise InputError(f"{path} holds no faces")
    ordered = in_order([read[i][1].points for i in open_order], order, str(path))
    for number, points in zip(open_order, ordered, strict=True):
        name, face = read[number]
        read[number] = name, face._replace(points=points)
    faces: dict[str, list[DetectedFace]] = {}
    for name, face in read:
        faces.setdefault(name, []).append(face)
    return faces


def for_photos(named: dict[str, T], photos: list[str]) -> dict[str, T]:
    """The faces of each photograph in a file: under its path, or under its name alone when the file
    names no folder and no other photograph has that name."""
    names = Counter(PurePosixPath(photo).name for photo in photos)
    found = {}
    for photo in photos:
        name = PurePosixPath(photo).name
        key = photo if photo in named or names[name] > 1 else name
        if key in named:
            found[photo] = named[key]
    return found


def _rows(path: Path) -> Iterator[list[str]]:
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = [line for line in file if line.strip() and not line.startswith("#")]
        if lines and "," in lines[0]:
            reader = csv.reader(lines, skipinitialspace=True)
            yield from ([field.strip() for field in row] for row in reader if row)
            return
        for line in lines:
            if line.strip():
                # Names may hold blanks where tabs part the fields.
                yield line.rstrip("\r\n").split("\t") if "\t" in line else line.split()


def _plain_path(name: str) -> str:
    """As photographs are named: slashes between folders, no ./ in front."""
    name = name.strip().replace("\\", "/")
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _is_heading(fields: list[str]) -> bool:
    """CelebA's number of images, or names of columns: no numbers after the first field."""
    return len(fields) == 1 or not any(map(_is_number, fields[1:]))


def _is_lst(fields: list[str]) -> bool:
    """Whether a line is one of insightface's lst."""
    return len(fields) >= 17 and fields[0] in ("0", "1")


def _face(fields: list[str], headings: list[str]) -> tuple[str, DetectedFace]:
    if _is_lst(fields):  # all x, then all y
        points = np.array(fields[7:17], np.float64).reshape(2, 5).T
        return fields[1], DetectedFace(points, identity=fields[2])
    values = fields[1:]
    points = np.array(values[:10], np.float64).reshape(5, 2)
    # CelebA names its coordinates only, so its headings are one shorter.
    named = dict(zip(headings[-len(fields) :][11:], values[10:], strict=False)) if headings else {}
    identity = named.get("identity", named.get("label"))
    score = named.get("score", values[10] if len(values) == 11 and not headings else None)
    return fields[0], DetectedFace(points, None if score is None else float(score), identity)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
