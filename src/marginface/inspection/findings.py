"""Results of an inspection: faults, suspicions, notes, pictures."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from marginface.data.alignment.mean_face import TemplateFit


class Finding(NamedTuple):
    """Something about one file or identity.

    Attributes:
        kind: damaged, size, duplicate, near duplicate, ...
        where: path relative to the root, or an identity.
        reason: in words.
    """

    kind: str
    where: str
    reason: str

    @property
    def line(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass
class Findings:
    """Everything the report shows.

    Attributes:
        root: what was inspected.
        counts: images, identities and the like.
        images_per_identity: (C,).
        faults: make the command fail.
        suspicions: are printed and do not.
        notes: sentences about the whole set.
        fit: where the mean face is, None without a readable image.
        mean_face: (112, 112, 3).
        sheet: a contact sheet; `sheet_names` says what it shows.
        outliers: darkest, brightest, most blurred images with their values.
    """

    root: str
    counts: dict[str, Any] = field(default_factory=dict)
    images_per_identity: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    faults: list[Finding] = field(default_factory=list)
    suspicions: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fit: TemplateFit | None = None
    mean_face: NDArray[np.float64] | None = None
    sheets: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    outliers: dict[str, list[tuple[str, float]]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain values, pictures left out."""
        return {
            "root": self.root,
            "counts": self.counts,
            "images_per_identity": self.images_per_identity.tolist(),
            "faults": [finding._asdict() for finding in self.faults],
            "suspicions": [finding._asdict() for finding in self.suspicions],
            "notes": self.notes,
            "template": None
            if self.fit is None
            else self.fit._asdict() | {"is_aligned": self.fit.is_aligned},
            "outliers": self.outliers,
        }
