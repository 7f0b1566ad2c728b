"""Files of verification pairs: insightface's .bin, lists of two images, LFW's pairs.txt."""

import os
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marginface.data.image_files import SUFFIXES, is_image_name
from marginface.data.pairs.unpickler import load_plain, plain_list
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.files import atomic_write
from marginface.utils.text_table import Lines, TextTable, read_table, readable

Same = NDArray[np.bool_]
PAIR_LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".lst", ".list")
_TRUE, _FALSE = ("1", "true", "yes", "same"), ("0", "-1", "false", "no", "different")


def read_pair_file(path: Path) -> tuple[list[bytes], Same]:
    """The encoded images and the labels of a .bin file, written by Python 2 or 3.

    Raises:
        InputError: a pickle that asks for anything but data, or that holds something else.
    """
    try:
        content = load_plain(path.read_bytes())
        if not isinstance(content, tuple | list) or len(content) != 2:
            raise InputError(f"expected a pickled (images, same), got {type(content).__name__}")
        encoded = [_encoded(image, i) for i, image in enumerate(plain_list(content[0]))]
        same = np.array([_flag(value, i) for i, value in enumerate(plain_list(content[1]))], bool)
        if not encoded or len(encoded) != 2 * len(same):
            raise InputError(f"{len(same)} labels need {2 * len(same)} images, got {len(encoded)}")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return encoded, same


def write_pair_file(path: str | Path, images: Iterable[bytes], same: Sequence[bool]) -> None:
    """Write an insightface .bin file, which Python 2 readers can load too.

    Args:
        path: of the file; it must not exist.
        images: 2N encoded images, pair i is images 2i and 2i + 1.
        same: N, whether a pair shows one person.

    Raises:
        InputError: the file exists, or the numbers do not fit.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists; choose another name, nothing is overwritten")
    encoded = list(images)
    if not same or len(encoded) != 2 * len(same):
        raise InputError(f"{len(same)} labels need {2 * len(same)} images, got {len(encoded)}")
    with atomic_write(path) as file:
        pickle.dump((encoded, [bool(s) for s in same]), file, protocol=2)


# What the columns of a pairs.csv may be called besides.
_HEADINGS = {
    "first": ("path1", "image1", "img1", "file1", "name1", "imgl"),
    "second": ("path2", "image2", "img2", "file2", "name2", "imgr"),
    "same": ("issame", "is_same", "label", "target", "match"),
}


def read_pair_list(path: Path, root: Path) -> tuple[list[str], Same]:
    """Image names, two a pair, and labels of a text file.

    Lines are two images and whether they show the same person: under the headings first,second,same
    (or other usual ones), or `image image 1`, or `1 image image`. Otherwise they are those of LFW's
    pairs.txt (or its pairsDevTest.txt): after one with the number of folds and of pairs,
    `name<TAB>i<TAB>j` is a genuine pair and `name<TAB>i<TAB>other<TAB>j` an impostor pair; image i
    of a person is name/name_000i.jpg.

    Args:
        root: folder of the images.

    Raises:
        InputError: another line, a value of `same` that is neither true nor false, or an image of
            LFW's that is not below `root`.
    """
    table = read_table(path, _names_columns)
    if table.headings is not None:
        return _image_pairs(table, table.by_heading(_HEADINGS))
    for columns in ((0, 1, 2), (1, 2, 0)):
        if _are_images(table, columns):
            cells = [[*line.fields, "", "", ""] for line in table.lines]
            return _image_pairs(table, [[row[place] for place in columns] for row in cells])
    return _lfw_pairs(table, root)


def read_photo_pairs(path: Path) -> tuple[list[tuple[str, ...]], bool]:
    """Pairs of photographs, (first, second) or (first, second, same), and whether `same` is there.

    Lines are a .csv with headings as `read_pair_list` knows them, `same` among them or not, or two
    images each.

    Raises:
        MissingInputError: no such file.
        InputError: other columns, or no pairs.
    """
    if not path.is_file():
        raise MissingInputError(f"no list of pairs {path}")
    table = read_table(path, _names_columns)
    if table.headings is None:
        pairs = [line.fields for line in table.lines]
        if not pairs or any(len(fields) != 2 for fields in pairs):
            raise InputError(f"{path}: expected two images a line, or headings: first,second")
        return pairs, False
    has_same = table.column("same", *_HEADINGS["same"]) is not None
    wanted = {name: others for name, others in _HEADINGS.items() if has_same or name != "same"}
    return table.by_heading(wanted), has_same


def _names_columns(fields: list[str], others: Lines) -> bool:
    known = {name for ours, others in _HEADINGS.items() for name in (ours, *others)}
    return len(known & set(fields)) >= 2


def _are_images(table: TextTable, columns: tuple[int, int, int]) -> bool:
    """Whether every one of the first lines is two images in these columns and a third field."""
    some = [line.fields for line in table.lines[:20]]
    first, second, flag = columns
    return bool(some) and all(
        len(fields) == 3
        and is_image_name(fields[first])
        and is_image_name(fields[second])
        and not is_image_name(fields[flag])
        for fields in some
    )


def _image_pairs(table: TextTable, cells: Sequence[Sequence[str]]) -> tuple[list[str], Same]:
    files: list[str] = []
    same: list[bool] = []
    for line, (first, second, flag) in zip(table.lines, cells, strict=True):
        word = flag.lower().removesuffix(".0")
        if word not in _TRUE + _FALSE or not first or not second:
            raise InputError(
                f"{table.path}: line {line.number}: expected two images and same=1 or 0, got "
                f"{line.text[:80]!r}"
            )
        files += [first, second]
        same.append(word in _TRUE)
    if not same:
        raise InputError(f"{table.path} lists no pairs")
    return files, np.array(same)


def _lfw_pairs(table: TextTable, root: Path) -> tuple[list[str], Same]:
    files: list[str] = []
    same: list[bool] = []
    for place, line in enumerate(table.lines):
        fields = [field for field in line.fields if field]  # Kaggle's csv pads genuine pairs
        if place == 0 and (len(fields) <= 2 or not any(map(str.isdigit, fields))):
            continue
        if len(fields) == 3:
            people = [(fields[0], fields[1]), (fields[0], fields[2])]
        elif len(fields) == 4:
            people = [(fields[0], fields[1]), (fields[2], fields[3])]
        else:
            people = []
        if not people or not all(image.isdigit() for _, image in people):
            raise InputError(
                f"{table.path}: line {line.number} is neither 'name i j' nor 'name i other j', nor "
                f"'image image 1': {line.text[:80]!r}"
            )
        files += [
            _lfw_file(root, name, int(image), table.path, line.number) for name, image in people
        ]
        same.append(len(fields) == 3)
    if not same:
        raise InputError(f"{table.path} lists no pairs")
    return files, np.array(same)


def read_pair_columns(path: Path) -> dict[str, NDArray[np.str_]]:
    """What else a pairs.csv states of its pairs: identity1, identity2, group1, group2.

    A column `group` holds for both sides.

    Raises:
        InputError: one of two columns without the other, or a row without a value.
    """
    table = read_table(path, _names_columns)
    wanted: dict[str, str] = {}  # the heading of each
    for kind in ("identity", "group"):
        sides = [f"{kind}1", f"{kind}2"]
        present = [name for name in sides if table.column(name) is not None]
        if kind == "group" and table.column(kind) is not None:
            wanted |= dict.fromkeys(sides, kind)
        elif len(present) == 1:
            raise InputError(
                f"{path} has the column {present[0]} and lacks the one of the other side"
            )
        else:
            wanted |= {name: name for name in present}
    if not wanted:
        return {}
    headings = list(dict.fromkeys(wanted.values()))
    columns = zip(*table.by_heading(dict.fromkeys(headings, ())), strict=True)
    cells = {
        heading: np.array([readable(word) for word in column])
        for heading, column in zip(headings, columns, strict=True)
    }
    return {side: cells[heading] for side, heading in wanted.items()}


def _lfw_file(root: Path, name: str, image: int, path: Path, line: int) -> str:
    stem = f"{name}/{name}_{image:04d}"
    for suffix in sorted(SUFFIXES):
        if os.path.isfile(f"{root}/{stem}{suffix}"):
            return stem + suffix
    raise InputError(
        f"{path}: line {line} names {stem}.jpg, which is not in {root}; data.pairs_root=<folder> "
        "(in evaluations benchmark.<name>.root) is the folder of the images"
    )


def _encoded(image: Any, index: int) -> bytes:
    if isinstance(image, bytes):
        return image
    raise InputError(f"image {index} is {type(image).__name__}, not encoded bytes")


def _flag(value: Any, index: int) -> bool:
    if isinstance(value, bool | int):
        return bool(value)
    raise InputError(f"label {index} is {type(value).__name__}, not true or false")
