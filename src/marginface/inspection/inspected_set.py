"""A set of faces under inspection: names of its images, and the findings so far."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marginface.data.dataset import FaceDataset
from marginface.data.images import ImageRules, Pixels
from marginface.inspection.findings import Finding, Findings
from marginface.inspection.measurements import SIDE

OnProgress = Callable[[str, int, int], None]  # stage, done, all
AS_SHOWN = ImageRules(size=SIDE, resize=True, alpha="drop")


class InspectedSet:
    """What every step of an inspection adds its findings to.

    Args:
        root: where the set is; names of images are relative to it.
        faces: the set.
    """

    def __init__(self, root: Path, faces: FaceDataset) -> None:
        self.faces = faces
        self.findings = Findings(str(root))
        self._prefix = f"{root}/"

    def name(self, index: int) -> str:
        """An image as lines name it."""
        return self.faces.describe(index).replace(self._prefix, "")

    def identity(self, image: int) -> str:
        """Whose image this is."""
        return self.faces.identity(int(self.faces.labels[image]))

    def fault(self, kind: str, where: str, reason: str) -> None:
        self.findings.faults.append(Finding(kind, where, reason))

    def suspicion(self, kind: str, where: str, reason: str) -> None:
        self.findings.suspicions.append(Finding(kind, where, reason))

    def picture(self, index: int) -> Pixels:
        """An image as pages show it, whatever its size."""
        return AS_SHOWN.decode(self.faces.image_bytes(index))

    def pictures(self, indices: NDArray[np.int64]) -> list[Pixels]:
        return [self.picture(index) for index in indices.tolist()]
