"""Five-point alignment: the standard template, and the similarity transform onto it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from marginface.data.images import Pixels
from marginface.utils.errors import InputError

Points = NDArray[np.float64]  # (5, 2) x, y: eyes, nose, mouth corners; left to right in the image

# insightface's template for 112x112 (the 96x112 one of SphereFace, 8 pixels to the right).
TEMPLATE: Points = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
)
# Of 1,040 faces with detected points, profiles among them, the worst was 17.5 off.
MAX_MISFIT = 19.0  # pixels at 112; points that fit nothing are 24 off
# How messages of points that are not those of a face in this image begin.
POINTS_ARE_WRONG = ("a point is outside", "left and right are swapped", "the points fit no face")
_MARGIN = 0.25  # of the image's side, that points of a cut face may be outside


def template(size: int) -> Points:
    """The five points for a square of `size` pixels.

    Multiples of 112 scale the template, multiples of 128 scale it and shift it by 8 pixels at 128,
    as insightface's face_align does.

    Raises:
        InputError: another size.
    """
    if size > 0 and size % 112 == 0:
        return TEMPLATE * (size / 112)
    if size > 0 and size % 128 == 0:
        return (TEMPLATE + np.array([8, 0])) * (size / 128)
    raise InputError(f"aligned faces have a side of a multiple of 112 or 128 pixels, got {size}")


def similarity(source: Points, target: Points) -> NDArray[np.float64]:
    """(2, 3) matrix of the turn, scale and shift that bring points nearest to others.

    Least squares without reflection; in the plane Umeyama's solution (1991, eqs. 40 to 43) is one
    complex number.

    Raises:
        InputError: all points in one place.
    """
    center, goal = source.mean(0), target.mean(0)
    x, y = (source - center).T
    u, v = (target - goal).T
    spread = float((x * x + y * y).sum())
    if not spread > 1e-12:
        raise InputError("all five points are in one place")
    a, b = float((x * u + y * v).sum()) / spread, float((x * v - y * u).sum()) / spread
    turn = np.array([[a, -b], [b, a]])
    return np.column_stack([turn, goal - turn @ center])


def misfit(points: Points) -> float:
    """Root mean square distance to the template after alignment, in pixels at 112."""
    matrix = similarity(points, TEMPLATE)
    placed = points @ matrix[:, :2].T + matrix[:, 2]
    return float(np.sqrt(((placed - TEMPLATE) ** 2).sum(1).mean()))


def align(
    rgb: Pixels, points: Points, size: int = 112, target: Points | None = None, border: int = 0
) -> Pixels:
    """The face on the template, black where the image ends; bilinear, as insightface's norm_crop.

    Args:
        rgb: (H, W, 3).
        points: (5, 2) in pixels.
        size: of the square that comes out.
        target: (5, 2) where the points come to be; `template(size)` when not given.
        border: value of pixels beyond the image.
    """
    matrix = similarity(points, template(size) if target is None else target)
    face: Pixels = cv2.warpAffine(rgb, matrix, (size, size), borderValue=(border,) * 3)
    return face


def standard_template(size: int) -> Points:
    """`template`, and for other sizes the one of 112 to scale."""
    return template(size) if size % 112 == 0 or size % 128 == 0 else TEMPLATE * (size / 112)


def check_points(
    points: Points, height: int, width: int, min_face: float, max_misfit: float = MAX_MISFIT
) -> None:
    """InputError, with the reason, for points that cannot be those of a face in the image.

    Args:
        points: (5, 2).
        height, width: of the image.
        min_face: pixels between the eyes or from the eyes to the mouth, whichever is more.
        max_misfit: largest `misfit`.
    """
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise InputError("the points are not five pairs of numbers")
    sides = np.array([width, height])
    outside = (points < -_MARGIN * sides) | (points > (1 + _MARGIN) * sides)
    if outside.any():
        x, y = points[int(outside.any(1).argmax())]
        raise InputError(f"a point is outside the image (at {x:.0f}, {y:.0f} of {width}x{height})")
    eyes = points[1] - points[0]
    down = points[3:].mean(0) - points[:2].mean(0)
    across, along = float(np.hypot(*eyes)), float(np.hypot(*down))
    if max(across, along) < min_face:
        raise InputError(
            f"the face is small: {across:.1f} pixels between the eyes, {along:.1f} to the mouth; "
            f"one of them must be {min_face:g}"
        )
    # In a profile the eyes meet, and which is left means little.
    if across > 0.3 * along and eyes[0] * down[1] - eyes[1] * down[0] <= 0:
        raise InputError("left and right are swapped; the first eye is the one left in the image")
    off = misfit(points)
    if off > max_misfit:
        raise InputError(f"the points fit no face ({off:.0f} pixels off the template)")
