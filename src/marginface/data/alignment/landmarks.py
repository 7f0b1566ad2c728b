"""Landmark files, five points a face: csv, CelebA's list, insightface's two kinds."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from marginface.data.alignment.point_reading import in_order, median_misfit
from marginface.data.alignment.template import Points
from marginface.data.image_list import LABEL_HEADINGS, PATH_HEADINGS
from marginface.utils.console import rank_zero_print
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.text_table import Line, Lines, as_heading, is_number, read_table, readable

T = TypeVar("T")
_MANY = 40  # fields of a line; five points and a box take 20
_SCORES = ("score", "confidence", "conf", "prob", "probability")
_NUMBERED = (
    re.compile(r"(?:p|pt|point|lm|landmark|kp|keypoint)?_?(?P<point>\d+)_?(?P<axis>[xy])"),
    re.compile(r"(?P<axis>[xy])_?(?P<point>\d+)"),
)
_NAMED = re.compile(
    r"(?P<point>left_?eye|right_?eye|nose|left_?mouth|mouth_?left|right_?mouth|mouth_?right)"
    r"(?:_?(?:tip|center|corner))?_?(?P<axis>[xy])"
)
_PLACE = {"lefteye": 0, "righteye": 1, "nose": 2, "leftmouth": 3, "mouthleft": 3, "rightmouth": 4,
          "mouthright": 4}  # fmt: skip


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


class _Columns(NamedTuple):
    """Where in a line is what."""

    name: int
    points: list[int]  # of the ten coordinates, x1 y1 ... x5 y5
    score: int | None = None
    identity: int | None = None


def read_landmarks(path: str | Path, order: str = "auto") -> dict[str, list[DetectedFace]]:
    """Faces by photograph, as the file names them.

    Lines are `path,x1,y1,...,x5,y5` (csv, columns in any order where headings name them; `identity`
    or `label` and `score` may be there), CelebA's and insightface's `name x1 y1 ... x5 y5 [score]`,
    `name label x1 y1 ... x5 y5`, or insightface's lst,
    `aligned<TAB>path<TAB>label<TAB>box (4)<TAB>x1..x5<TAB>y1..y5`.

    Args:
        order: of the coordinates but in the lst, see `point_reading.in_order`.

    Raises:
        MissingInputError: no such file.
        InputError: a line of no known kind, or points that fit in another order only.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingInputError(f"no landmark file {path}")
    lines = read_table(path).lines
    if lines and len(lines[0].fields) == 1:  # CelebA's number of images
        lines = lines[1:]
    headings = []
    if lines and not any(map(is_number, lines[0].fields[1:])):
        headings = list(map(as_heading, lines[0].fields))
        if len(lines) > 1 and len(headings) == len(lines[1].fields) - 1:
            headings = ["path", *headings]  # CelebA names its coordinates only
        lines = lines[1:]
    if not lines:
        raise InputError(f"{path} holds no faces")
    width = len(lines[0].fields)
    if width >= _MANY and _coordinates(headings) is None:
        raise InputError(
            f"{path}: its lines have {width} fields, as those of about {(width - 1) // 2} points; "
            "five are needed: the centers of the eyes, the nose, the corners of the mouth"
        )
    columns = _by_heading(headings) if headings else _by_place(lines, path)
    read = [_face(line, columns, path) for line in lines]
    open_order = [i for i, line in enumerate(lines) if not _is_lst(line.fields)]
    ordered = in_order([read[i][1].points for i in open_order], order, str(path))
    for number, points in zip(open_order, ordered, strict=True):
        name, face = read[number]
        read[number] = name, face._replace(points=points)
    faces: dict[str, list[DetectedFace]] = {}
    for name, face in read:
        faces.setdefault(name, []).append(face)
    return faces


def for_photos(named: dict[str, T], photos: list[str], where: str = "the file") -> dict[str, T]:
    """The entries of a file that belong to photographs, by photograph.

    A file names a photograph by its path, with or without the ending, perhaps with folders of
    another machine in front; or by the end of its path, from its name alone on, when no other
    photograph ends like that.

    Raises:
        InputError: the file names none of them.
    """
    plain = {_plain_path(name): value for name, value in named.items()}
    in_front = _folders_in_front(plain, photos)

    def entry_of(path: str) -> str | None:
        return next((key for key in (path, path.rpartition(".")[0]) if key in plain), None)

    entries = {photo: entry_of(in_front + photo) for photo in photos}
    for photo, entry in entries.items():
        if entry is None:
            entries[photo] = next(filter(None, map(entry_of, _ends(photo))), None)
    wanted_by = Counter(entries.values())
    found = {
        photo: plain[entry]
        for photo, entry in entries.items()
        if entry is not None and (wanted_by[entry] == 1 or entry == in_front + photo)
    }
    if named and not found:
        raise InputError(
            f"{where} names none of the {len(photos)} photographs: its first name is "
            f"{readable(next(iter(named)))!r}, the first photograph is {photos[0]!r}"
        )
    return found


def _ends(path: str) -> Iterator[str]:
    """A path without its first folder, without its first two, and so on down to its name."""
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _folders_in_front(named: dict[str, T], photos: list[str]) -> str:
    """What the file has in front of the paths of photographs; nothing when they are found as is."""
    if any(photo in named for photo in photos):
        return ""
    folders = [photo for photo in photos if "/" in photo]
    for name in named:
        for photo in folders[:1000]:
            for path in (photo, photo.rpartition(".")[0]):
                if name.endswith(f"/{path}"):
                    return name.removesuffix(path)
        break
    known = set(photos)
    for name in list(named)[:1000]:
        for start in range(1, name.count("/")):
            if "/".join(name.split("/")[start:]) in known:
                return "/".join(name.split("/")[:start]) + "/"
    return ""


def _plain_path(name: str) -> str:
    """As photographs are named: slashes between folders, no ./ in front."""
    name = name.strip().replace("\\", "/")
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name


def _by_heading(headings: list[str]) -> _Columns:
    def place(*names: str) -> int | None:
        return next((headings.index(name) for name in names if name in headings), None)

    name = place("path", *PATH_HEADINGS, "name_id", "name")
    if name is None:
        name = 1 if headings[0] in ("", "unnamed: 0", "index") else 0
    score, identity = place(*_SCORES), place("identity", *LABEL_HEADINGS[:-1])
    identity = None if identity == name else identity
    points = _coordinates(headings)
    if points is None:  # called in some other way, but in their order
        points = [i for i in range(name + 1, len(headings)) if i not in (score, identity)][:10]
    return _Columns(name, points, score, identity)


def _coordinates(headings: list[str]) -> list[int] | None:
    """Columns of x1 y1 ... x5 y5; None when the headings do not tell all ten."""
    found: dict[tuple[int, str], int] = {}
    for column, heading in enumerate(headings):
        for pattern in _NUMBERED:
            if match := pattern.fullmatch(heading):
                found[int(match["point"]), match["axis"]] = column
        if match := _NAMED.fullmatch(heading):
            found[_PLACE[match["point"].replace("_", "")], match["axis"]] = column
    numbers = sorted({number for number, _ in found})
    if len(found) != 10 or len(numbers) != 5:
        return None
    return [found[number, axis] for number in numbers for axis in "xy"]


def _by_place(lines: Lines, path: Path) -> _Columns:
    """`name x1 y1 ... x5 y5 [score]`, or with a label behind the name."""
    with_score = _Columns(0, list(range(1, 11)), 11)
    some = [line.fields for line in lines[:1000] if not _is_lst(line.fields)]
    if not some or any(len(fields) != 12 or not fields[1].isdecimal() for fields in some):
        return with_score
    some = [fields for fields in some if all(map(_is_finite, fields[1:]))]  # others are refused
    if not some:
        return with_score
    with_label = _Columns(0, list(range(2, 12)), identity=1)
    here, there = (
        median_misfit([_points(fields, columns) for fields in some])
        for columns in (with_score, with_label)
    )
    if there >= here:
        return with_score
    rank_zero_print(
        f"{path}: read 'name label x1 y1 ... x5 y5'; the points are {there:.1f} pixels off the "
        f"template in the median, without a label {here:.1f}"
    )
    return with_label


def _face(line: Line, columns: _Columns, path: Path) -> tuple[str, DetectedFace]:
    fields = line.fields
    if _is_lst(fields):  # all x, then all y
        coordinates = [place for point in range(7, 12) for place in (point, point + 5)]
        columns = _Columns(1, coordinates, identity=2)
    try:
        points = _points(fields, columns)
        score, identity = (
            None if place is None or place >= len(fields) else fields[place]
            for place in (columns.score, columns.identity)
        )
        return fields[columns.name], DetectedFace(
            points,
            float(score) if score else None,
            readable(identity) if identity else None,
        )
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{path}: line {line.number} does not hold a name and five points "
            f"(x1 y1 ... x5 y5): {line.text[:100]!r}"
        ) from error


def _is_finite(word: str) -> bool:
    return is_number(word) and math.isfinite(float(word))


def _points(fields: Sequence[str], columns: _Columns) -> Points:
    return np.array([fields[place] for place in columns.points], np.float64).reshape(5, 2)


def _is_lst(fields: Sequence[str]) -> bool:
    """Whether a line is one of insightface's lst."""
    return len(fields) >= 17 and fields[0] in ("0", "1")
