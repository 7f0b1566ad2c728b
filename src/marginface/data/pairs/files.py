"""Files of verification pairs: insightface's .bin, LFW's pairs.txt, and pairs.csv."""

import os
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marginface.data.image_files import SUFFIXES, is_image_name
from marginface.data.pairs.unpickler import load_plain, plain_list
from marginface.utils.csv_files import read_rows
from marginface.utils.errors import InputError
from marginface.utils.files import atomic_write
from marginface.utils.text_table import TextTable, read_table

Same = NDArray[np.bool_]
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


def read_pairs_txt(path: Path, root: Path) -> tuple[list[str], Same]:
    """Image names, two a pair, and labels of LFW's pairs.txt (or its pairsDevTest.txt).

    After a line with the number of folds and of pairs, `name<TAB>i<TAB>j` is a genuine pair and
    `name<TAB>i<TAB>other<TAB>j` an impostor pair; image i of a person is name/name_000i.jpg.
    Lines of two images and 1 or 0, as many repositories have them, are read as a pairs.csv is.

    Raises:
        InputError: another line, or an image that is not below `root`.
    """
    files: list[str] = []
    same: list[bool] = []
    table = read_table(path)
    if _are_images(table):
        return _image_pairs(table, 0, 1, 2)
    for number, line in ((line.number, line.text) for line in table.lines):
        fields = line.split()
        if number == 1 and len(fields) <= 2:
            continue
        if len(fields) == 3:
            people = [(fields[0], fields[1]), (fields[0], fields[2])]
        elif len(fields) == 4:
            people = [(fields[0], fields[1]), (fields[2], fields[3])]
        else:
            people = []
        if not people or not all(image.isdigit() for _, image in people):
            raise InputError(
                f"{path}: line {number} is neither 'name i j' nor 'name i other j': {line[:80]!r}"
            )
        files += [_lfw_file(root, name, int(image), path, number) for name, image in people]
        same.append(len(fields) == 3)
    if not same:
        raise InputError(f"{path} lists no pairs")
    return files, np.array(same)


def read_pair_csv(path: Path) -> tuple[list[str], Same]:
    """Image names, two a pair, and labels of a csv with the columns first, second, same.

    Raises:
        InputError: other columns, or a value of `same` that is neither true nor false.
    """
    table = read_table(path, _names_columns)
    if table.headings is None:
        if not _are_images(table):
            first = table.lines[0].text if table.lines else ""
            raise InputError(
                f"{path}: no column first, same, second; expected first,second,same and got {first}"
            )
        return _image_pairs(table, 0, 1, 2)
    places = {name: table.column(*others) for name, others in _HEADINGS.items()}
    missing = sorted(name for name, place in places.items() if place is None)
    if missing:
        raise InputError(
            f"{path}: no column {', '.join(missing)}; expected first,second,same and got "
            f"{','.join(table.headings)}"
        )
    return _image_pairs(table, *(place for place in places.values() if place is not None))


# What the columns of a pairs.csv are called, ours first.
_HEADINGS = {
    "first": ("first", "path1", "image1", "img1", "file1", "name1", "imgl"),
    "second": ("second", "path2", "image2", "img2", "file2", "name2", "imgr"),
    "same": ("same", "issame", "is_same", "label", "target", "match"),
}


def _names_columns(fields: list[str]) -> bool:
    known = {name for names in _HEADINGS.values() for name in names}
    return len(known & set(fields)) >= 2


def _are_images(table: TextTable) -> bool:
    """Whether every one of the first lines is two images and a number."""
    some = [line.fields for line in table.lines[:20]]
    return bool(some) and all(
        len(fields) == 3 and is_image_name(fields[0]) and is_image_name(fields[1])
        for fields in some
    )


def _image_pairs(table: TextTable, first: int, second: int, flag: int) -> tuple[list[str], Same]:
    files: list[str] = []
    same: list[bool] = []
    for line in table.lines:
        cells = [line.fields[i] if i < len(line.fields) else "" for i in (first, second, flag)]
        word = cells[2].lower()
        if word not in _TRUE + _FALSE or not cells[0] or not cells[1]:
            raise InputError(
                f"{table.path}: line {line.number}: expected two images and same=1 or 0, got "
                f"{line.text[:80]!r}"
            )
        files += cells[:2]
        same.append(word in _TRUE)
    if not same:
        raise InputError(f"{table.path} lists no pairs")
    return files, np.array(same)


def read_pair_columns(path: Path) -> dict[str, NDArray[np.str_]]:
    """What else a pairs.csv states of its pairs: identity1, identity2, group1, group2.

    A column `group` holds for both sides.

    Raises:
        InputError: one of two columns without the other, or a row without a value.
    """
    rows = read_rows(path, ())
    columns: dict[str, NDArray[np.str_]] = {}
    for kind in ("identity", "group"):
        sides = [f"{kind}1", f"{kind}2"]
        present = [name for name in sides if name in rows[0]]
        if kind == "group" and kind in rows[0]:
            sources = ["group", "group"]
        elif len(present) == 1:
            raise InputError(
                f"{path} has the column {present[0]} and lacks the one of the other side"
            )
        elif not present:
            continue
        else:
            sources = sides
        for side, source in zip(sides, sources, strict=True):
            words = [row[source] or "" for row in rows]
            if not all(words):
                raise InputError(f"{path}: line {words.index('') + 2} has no {source}")
            columns[side] = np.array(words)
    return columns


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
