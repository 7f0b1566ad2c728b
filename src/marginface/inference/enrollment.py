"""Which photographs of a person are good enough to be enrolled."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from marginface.inference.gallery_memory import GalleryMemory
from marginface.inference.photographs import OK, Faces, Photo
from marginface.metrics.identification import search

Places = NDArray[np.int64]
_CONTENT = 16  # bytes of a SHA-256


@dataclass(frozen=True)
class Refused:
    """A photograph that was not enrolled.

    Attributes:
        photo: its path, or "array 0" and so on.
        gate: "face", "norm", "twice" or "mislabel".
        reason: in words, with the numbers.
    """

    photo: str
    gate: Literal["face", "norm", "twice", "mislabel"]
    reason: str


@dataclass(frozen=True)
class Enrollment:
    """What became of the photographs of a person."""

    subject: str
    added: int
    refused: list[Refused] = field(default_factory=list)


def passed_gates(
    subject: str,
    faces: Faces,
    contents: Sequence[bytes],
    memory: GalleryMemory,
    enrolled: Mapping[bytes, str],
    *,
    min_norm: float | None,
    force: bool,
) -> tuple[Places, list[Refused]]:
    """Rows of `faces` that are good enough, and why others are not.

    Args:
        subject: who they show.
        faces: a row per photograph.
        contents: what stands for each photograph.
        memory: everybody who is enrolled.
        enrolled: owner by what stands for a photograph.
        min_norm: of an embedding; None leaves that gate out, and so do graphs that hide norms.
        force: skip all gates but that of a face.
    """
    refused = [
        Refused(str(photo), "face", str(status))
        for photo, status in zip(faces.photo, faces.status, strict=True)
        if status != OK
    ]
    kept = np.flatnonzero(faces.found)
    if force:
        return kept, refused
    if min_norm is not None:
        kept = _norm(faces, kept, min_norm, refused)
    kept = _twice(faces, kept, contents, enrolled, refused)
    return _mislabel(subject, faces, kept, memory, refused), refused


def _norm(faces: Faces, kept: Places, least: float, refused: list[Refused]) -> Places:
    low = faces.norm[kept] < least  # false where a graph hides the norm
    for n in kept[low]:
        reason = (
            f"a bad photograph: the norm of its embedding is {faces.norm[n]:.3g}, at least "
            f"{least:.3g} is wanted (--min-norm)"
        )
        refused.append(Refused(str(faces.photo[n]), "norm", reason))
    return kept[~low]


def _twice(
    faces: Faces,
    kept: Places,
    contents: Sequence[bytes],
    enrolled: Mapping[bytes, str],
    refused: list[Refused],
) -> Places:
    seen: dict[bytes, str] = {}
    good = []
    for n in kept:
        photo, content = str(faces.photo[n]), contents[n]
        if content in enrolled:
            reason = f"the very same photograph is enrolled as {enrolled[content]!r} already"
        elif content in seen:
            reason = f"the very same photograph as {seen[content]}"
        else:
            seen[content] = photo
            good.append(n)
            continue
        refused.append(Refused(photo, "twice", reason))
    return np.array(good, np.int64)


def _mislabel(
    subject: str, faces: Faces, kept: Places, memory: GalleryMemory, refused: list[Refused]
) -> Places:
    """Leave out images that are nearer to another person than to the others of their own."""
    own = memory.place.get(subject, -1)
    mine = memory.vectors[torch.from_numpy(memory.owner == own)]
    new = torch.from_numpy(faces.embedding[kept])
    if len(mine) + len(new) < 2 or not len(new) or len(memory.names) - (own >= 0) < 1:
        return kept
    others = F.normalize(torch.cat([mine, new]).sum(0) - new)  # the mean of all but the image
    own_scores = (others * new).sum(1)
    scores, places = search(new, memory.templates, min(2, len(memory.names)))
    best, at = scores.masked_fill(places == own, -2.0).max(1)
    wrong = (best > own_scores).numpy()
    for n in np.flatnonzero(wrong):
        other = memory.names[int(places[n, at[n]])]
        reason = (
            f"nearer to {other!r} (cosine {float(best[n]):.3f}) than to the other photographs of "
            f"{subject!r} ({float(own_scores[n]):.3f}): probably of somebody else (--force enrolls "
            "it all the same)"
        )
        refused.append(Refused(str(faces.photo[kept[n]]), "mislabel", reason))
    return kept[~wrong]


def content_of(photo: Photo) -> bytes:
    """What stands for a photograph: of a file its bytes, of an array its pixels."""
    if isinstance(photo, str | Path):
        try:
            content = Path(photo).read_bytes()
        except OSError:
            content = str(photo).encode(errors="surrogateescape")  # it has no embedding either
        return hashlib.sha256(content).digest()[:_CONTENT]
    return hashlib.sha256(np.ascontiguousarray(photo).tobytes()).digest()[:_CONTENT]
