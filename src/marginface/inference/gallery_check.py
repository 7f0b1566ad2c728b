"""What is wrong, or doubtful, in a gallery; and its content as a table for other programs."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from marginface.inference.gallery_file import GalleryFile
from marginface.inference.gallery_memory import GalleryMemory
from marginface.inference.gallery_threshold import strangers, threshold_of
from marginface.metrics.identification import search
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.files import atomic_write
from marginface.utils.optional_packages import require_package

_FPIRS = (0.1, 0.05, 0.02, 0.01, 0.001)
_ALIKE = 0.01  # FPIR from whose threshold on people are too alike
_LISTED = 20
_AT_ONCE = 1024


@dataclass(frozen=True)
class GalleryCheck:
    """What was found.

    Attributes:
        people, images: enrolled.
        damage: of the file; None when it is whole.
        thresholds: cosine by FPIR, from the people themselves, and whether there are enough.
        alike: pairs of people whose templates reach the threshold at FPIR 1e-2, and their cosine.
        single: people with one image.
        outliers: image ids, people, their cosine to the own others, the nearest other person and
            the cosine to that: images that are nearer to somebody else.
    """

    people: int
    images: int
    damage: str | None
    thresholds: list[tuple[float, float, bool]]
    alike: list[tuple[str, str, float]]
    single: list[str]
    outliers: list[tuple[int, str, float, str, float]]


def check_gallery(file: GalleryFile) -> GalleryCheck:
    """Look for what makes searches wrong.

    Raises:
        InputError: an empty gallery.
    """
    damage = file.damage()
    width = _width(file)
    rows = file.rows(width)
    memory = GalleryMemory(rows, width, file.path)
    people = len(memory.names)
    if not people:
        raise InputError(f"{file.path} is empty; enroll somebody first")
    counts = np.bincount(memory.owner, minlength=people)
    single = [memory.names[n] for n in np.flatnonzero(counts == 1)]
    if people < 2:
        return GalleryCheck(people, len(memory.owner), damage, [], [], single, [])
    best = strangers(memory)
    thresholds = [(fpir, threshold_of(best, fpir), fpir * people >= 2) for fpir in _FPIRS]
    return GalleryCheck(
        people,
        len(memory.owner),
        damage,
        thresholds,
        _alike(memory, threshold_of(best, _ALIKE)),
        single,
        _outliers(memory, rows.images, counts),
    )


def _alike(memory: GalleryMemory, limit: float) -> list[tuple[str, str, float]]:
    scores, places = search(memory.templates, memory.templates, 2)
    own = torch.arange(len(memory.names))[:, None]
    best, at = scores.masked_fill(places == own, -2.0).max(1)
    found = {}
    for n in (best >= limit).nonzero()[:, 0].tolist():
        pair = tuple(sorted((n, int(places[n, at[n]]))))
        found[pair] = float(best[n])
    ordered = sorted(found.items(), key=lambda entry: -entry[1])
    return [(memory.names[a], memory.names[b], cosine) for (a, b), cosine in ordered]


def _outliers(
    memory: GalleryMemory, ids: NDArray[np.int64], counts: NDArray[np.int64]
) -> list[tuple[int, str, float, str, float]]:
    several = np.flatnonzero(counts[memory.owner] > 1)
    sums = torch.zeros_like(memory.templates)
    sums.index_add_(0, torch.from_numpy(memory.owner.copy()), memory.vectors)
    found = []
    for at in range(0, len(several), _AT_ONCE):
        rows = torch.from_numpy(several[at : at + _AT_ONCE])
        owner = torch.from_numpy(memory.owner[rows.numpy()])
        images = memory.vectors[rows]
        own = (F.normalize(sums[owner] - images) * images).sum(1)
        scores, places = search(images, memory.templates, 2)
        best, which = scores.masked_fill(places == owner[:, None], -2.0).max(1)
        for n in (best > own).nonzero()[:, 0].tolist():
            other = memory.names[int(places[n, which[n]])]
            name = memory.names[int(owner[n])]
            found.append((int(ids[rows[n]]), name, float(own[n]), other, float(best[n])))
    return sorted(found, key=lambda entry: entry[2] - entry[4])


def check_lines(check: GalleryCheck) -> list[str]:
    """The check in words."""
    lines = [f"{check.people} people, {check.images} images"]
    lines.append("the file is whole" if check.damage is None else f"DAMAGED: {check.damage}")
    for fpir, cosine, enough in check.thresholds:
        needed = f"not known, {int(np.ceil(2 / fpir))} people are needed"
        lines.append(f"FPIR {fpir:g}: " + (f"threshold {cosine:.3f}" if enough else needed))
    groups: list[tuple[str, list[str]]] = [
        ("pairs of people are alike", [f"{a} and {b} ({c:.3f})" for a, b, c in check.alike]),
        ("people have one photograph only", check.single),
        (
            "images are nearer to another person",
            [f"image {i} of {n} ({o:.3f}) to {p} ({b:.3f})" for i, n, o, p, b in check.outliers],
        ),
    ]
    for title, entries in groups:
        if entries:
            more = f", and {len(entries) - _LISTED} more" if len(entries) > _LISTED else ""
            lines.append(f"{len(entries)} {title}: {', '.join(entries[:_LISTED])}{more}")
    return lines


def export_gallery(file: GalleryFile, target: Path) -> int:
    """Write people and vectors to a .parquet file, for databases; returns the number of images.

    Columns: id, subject, vector (D float32 of unit length), norm, score, added.

    Raises:
        InputError: a target that exists or is no .parquet, or pyarrow is missing.
    """
    if target.suffix != ".parquet":
        raise InputError(f"{target}: a gallery is exported as .parquet")
    if target.exists():
        raise InputError(f"{target} exists; choose another name, nothing is overwritten")
    if not target.parent.is_dir():
        raise MissingInputError(f"no folder {target.parent} for {target.name}; make it first")
    pa: Any = require_package("pyarrow", extra="parquet")
    pq: Any = require_package("pyarrow.parquet", extra="parquet")
    rows = file.rows(_width(file))
    details = {row[0]: row for row in file.details()}
    vectors = pa.array(rows.vectors.astype(np.float32).reshape(-1))
    kept = [details[int(number)] for number in rows.images]
    table = pa.table(
        {
            "id": pa.array(rows.images),
            "subject": pa.array([row[1] for row in kept]),
            "vector": pa.FixedSizeListArray.from_arrays(vectors, rows.vectors.shape[1]),
            "norm": pa.array([row[2] for row in kept], pa.float32()),
            "score": pa.array([row[3] for row in kept], pa.float32()),
            "added": pa.array([datetime.fromtimestamp(row[4], UTC) for row in kept]),
        }
    ).replace_schema_metadata({"marginface": json.dumps(file.about())})
    with atomic_write(target, private=True) as opened:
        pq.write_table(table, opened)
    return len(kept)


def _width(file: GalleryFile) -> int:
    """Length of the vectors."""
    word = file.about().get("embedding_size", "")
    if not word.isdigit() or not int(word):
        raise InputError(f"{file.path} is damaged: it does not say how long its vectors are")
    return int(word)
