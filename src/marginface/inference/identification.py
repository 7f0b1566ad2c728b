"""The answer to whose face it is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Identification:
    """Who a face is.

    Attributes:
        name: of the nearest person, None for unknown.
        cosine: to that person's template, whether it is reached or not.
        threshold: from which on a person is found.
        candidates: nearest people and their cosines, nearest first.
        photo, face: where the face is.
        points: (5, 2) in pixels; None where it was aligned already.
    """

    name: str | None
    cosine: float
    threshold: float
    candidates: list[tuple[str, float]]
    photo: str = ""
    face: int = 0
    points: NDArray[np.float32] | None = None

    def __str__(self) -> str:
        nearest = f"nearest {self.candidates[0][0]} " if self.name is None else ""
        line = (
            f"{self.name or 'unknown'}: {nearest}cosine {self.cosine:.3f}, threshold "
            f"{self.threshold:.3f}"
        )
        if len(self.candidates) > 1:
            name, cosine = self.candidates[1]
            line += f", next {name} {cosine:.3f}"
        return line
