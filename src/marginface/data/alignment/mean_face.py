"""Whether the mean face of a set sits on the template.

The mean of aligned faces has dark eyes, brows, nostrils and mouth where the template's points are.
A drawing of just that is compared with the set's mean face at many sizes, turns and places.
"""

import itertools
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from marginface.data.alignment.template import TEMPLATE

SIDE = 112
MAX_OFFSET = 5.0  # pixels at 112
LEAST_LIKENESS_OF_FEW = 0.05
LEAST_LIKENESS = 0.15  # of 8 and more aligned faces 0.17 to 0.55, of others -0.25 to 0.15
_SMALL = 56
_SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.12, 1.25, 1.4, 1.6)
_TURNS = (-30, -20, -10, 0, 10, 20, 30)
_SHIFTS = range(-20, 21, 4)
_GAIN = 0.05  # in correlation, that another place must bring to be believed


class TemplateFit(NamedTuple):
    """Where the mean face is.

    Attributes:
        correlation: with the drawing on the template, -1 to 1; 0.4 to 0.55 for aligned sets.
        best: correlation where it fits best.
        scale, turn, right, down: of the mean face there: size relative to the template, degrees
            against the clock, pixels at 112.
        offset: mean distance of the five points from the template there, pixels at 112.
    """

    correlation: float
    best: float
    scale: float
    turn: float
    right: float
    down: float
    offset: float

    @property
    def is_aligned(self) -> bool:
        """Whether the mean face is on the template, as far as can be seen."""
        on_template = self.offset <= MAX_OFFSET or self.best < self.correlation + _GAIN
        return on_template and self.correlation > LEAST_LIKENESS


def likeness(rgb: NDArray[np.float64]) -> float:
    """Correlation of a mean face with the drawing, -1 to 1, see LEAST_LIKENESS.

    Args:
        rgb: (S, S, 3), S a multiple of 112 or 128.
    """
    gray = cv2.cvtColor(rgb.astype(np.float32), cv2.COLOR_RGB2GRAY)
    if len(gray) % SIDE:  # templates of multiples of 128 have a border of one sixteenth
        border = len(gray) // 16
        gray = gray[border:-border, border:-border]
    mean = cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    return float(_outline(template_face()) @ _outline(mean))


def fit_template(gray: NDArray[np.float64]) -> TemplateFit:
    """Compare a mean gray face (112, 112) with the template's."""
    drawing, target = template_face(), _outline(gray)
    on_template = float(_outline(drawing) @ target)
    places = itertools.product(_SCALES, _TURNS, _SHIFTS, _SHIFTS)
    best, place = max((float(_outline(_placed(drawing, *p)) @ target), p) for p in places)
    matrix = _matrix(*place)
    moved = TEMPLATE @ matrix[:, :2].T + matrix[:, 2]
    offset = float(np.hypot(*(moved - TEMPLATE).T).mean())
    scale, turn, right, down = map(float, place)
    return TemplateFit(on_template, best, scale, turn, right, down, offset)


def template_face() -> NDArray[np.float64]:
    """The drawing, (112, 112): negative where a mean face is dark."""
    left, right, nose, *mouth = TEMPLATE
    middle = np.mean(mouth, axis=0)
    face = 0.5 * _spot(nose[0], nose[1] - 6, 6, 14)  # ridge of the nose
    for eye, side in ((left, -5), (right, 5)):
        face -= _spot(eye[0], eye[1], 6, 3)
        face -= 0.6 * _spot(eye[0], eye[1] - 10, 9, 2.5)  # brow
        face -= 0.5 * _spot(nose[0] + side, nose[1] + 4, 3, 2)  # nostril
    return face - 0.9 * _spot(middle[0], middle[1], 11, 3)


def _spot(x: float, y: float, width: float, height: float) -> NDArray[np.float64]:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    spot: NDArray[np.float64] = np.exp(
        -(((columns - x) / width) ** 2 + ((rows - y) / height) ** 2) / 2
    )
    return spot


def _matrix(scale: float, turn: float, right: float, down: float) -> NDArray[np.float64]:
    middle = (SIDE - 1) / 2
    matrix = np.asarray(cv2.getRotationMatrix2D((middle, middle), turn, scale), np.float64)
    matrix[:, 2] += right, down
    return matrix


def _placed(
    face: NDArray[np.float64], scale: float, turn: float, right: float, down: float
) -> NDArray[np.float64]:
    moved: NDArray[np.float64] = cv2.warpAffine(
        face, _matrix(scale, turn, right, down), (SIDE, SIDE)
    )
    return moved


def _outline(face: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is left of a face without its slow light, inside a circle, as a unit vector."""
    small = cv2.resize(face, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA)
    small = small - cv2.GaussianBlur(small, (0, 0), 6)
    rows, columns = np.mgrid[:_SMALL, :_SMALL] - (_SMALL - 1) / 2
    inside = rows**2 + columns**2 < (_SMALL / 2) ** 2
    values = small[inside] - small[inside].mean()
    return values / max(float(np.linalg.norm(values)), 1e-12)
