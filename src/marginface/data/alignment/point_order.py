"""In which order a file has the coordinates of its points, judged by the whole file."""

from typing import Literal, get_args

import numpy as np

from marginface.data.alignment.template import Points, misfit
from marginface.utils.errors import InputError, unknown_name

PointOrder = Literal["auto", "xyxy", "xxyy"]  # x1 y1 x2 y2 ..., or x1 x2 ... y1 y2 ...
_LOOKED_AT = 1000  # faces
_BETTER = 3.0  # times; that another order fits so much better is not by chance


def in_order(faces: list[Points], order: str, where: str) -> list[Points]:
    """Points of a file, of which the ten numbers were read as x1 y1 ... x5 y5, in the right order.

    Args:
        faces: (5, 2) each.
        order: "xyxy" leaves them, "xxyy" reads the numbers as x1 ... x5 y1 ... y5, "auto" leaves
            them unless the other order fits faces much better.
        where: they come from, for the message.

    Raises:
        InputError: an unknown order, or one that does not fit; the message has both misfits.
    """
    if order not in get_args(PointOrder):
        raise InputError(unknown_name("--order", order, get_args(PointOrder)))
    if order == "xxyy":
        return [_other(points) for points in faces]
    if order == "auto" and faces:
        some = faces[:: max(len(faces) // _LOOKED_AT, 1)]
        here = float(np.median([_misfit(points) for points in some]))
        other = float(np.median([_misfit(_other(points)) for points in some]))
        if other * _BETTER <= here:
            raise InputError(
                f"{where}: read as x1 y1 ... x5 y5 its points are {here:.1f} pixels off the "
                f"template in the median, as x1 ... x5 y1 ... y5 only {other:.1f}: use --order "
                "xxyy (or --order xyxy if they are right as they are)"
            )
    return faces


def _other(points: Points) -> Points:
    return points.reshape(2, 5).T.copy()


def _misfit(points: Points) -> float:
    """Pixels at 112; infinite for points that cannot be a face."""
    if not np.isfinite(points).all():
        return np.inf
    try:
        return misfit(points)
    except InputError:
        return np.inf
