"""How the numbers of a file's points are meant, judged by the whole file: order and pixels.

Each face is compared with the template; the median over the file tells one reading from another,
because real faces are about 4 pixels off it, and those that are read wrongly 17 to 26.
"""

from itertools import permutations
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from marginface.data.alignment.template import TEMPLATE, Points
from marginface.utils.console import rank_zero_warn
from marginface.utils.errors import InputError, check_choice

PointOrder = Literal["auto", "xyxy", "xxyy"]
PointFrame = Literal["auto", "apply", "ignore"]  # whether points are in pixels as EXIF shows them
Numbers = NDArray[np.float64]
_BETTER = 3.0  # times; that another reading fits so much better is not by chance
_GOOD = 8.0  # pixels; points that fit so well are read rightly, whatever fits better
_FEW = 5  # faces; one of many readings may fit fewer by chance
_LOOKED_AT = 1000  # faces
_SEARCHED = 100  # faces on which all readings are tried
_UPRIGHT = 60.0  # degrees of turn that photographs rarely exceed
_COORDINATES = {
    "xyxy": "x1 y1 ... x5 y5",
    "xxyy": "x1 ... x5 y1 ... y5",
    "yxyx": "y1 x1 ... y5 x5",
    "yyxx": "y1 ... y5 x1 ... x5",
}
_PARTS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
_IN_PLACE = tuple(range(5))


def in_order(faces: list[Points], order: str, where: str) -> list[Points]:
    """Points of a file, of which the ten numbers were read as x1 y1 ... x5 y5, in the right order.

    Args:
        faces: (5, 2) each.
        order: "xyxy" leaves them, "xxyy" reads the numbers as x1 ... x5 y1 ... y5, "auto" leaves
            them unless another order of coordinates or of points fits the faces much better.
        where: they come from, for the message.

    Raises:
        InputError: an unknown order, or one that does not fit (the message has both misfits), or
            fractions of the image's sides.
    """
    check_choice("--order", order, get_args(PointOrder))
    if order == "xxyy":
        return [points.reshape(2, 5).T.copy() for points in faces]
    if order == "auto" and faces:
        check_order(np.stack(faces), where)
    return faces


def check_order(faces: Numbers, where: str) -> None:
    """InputError when another order fits points (N, 5, 2) much better than the one they are in."""
    faces = faces[np.isfinite(faces).all((1, 2))]
    if not len(faces):
        return
    largest = float(np.abs(faces).max())
    if largest <= 1.5:
        raise InputError(
            f"{where}: no coordinate is larger than {largest:g}: they are fractions of the "
            "photograph's sides; multiply x by its width and y by its height"
        )
    some = faces[:: max(len(faces) // _LOOKED_AT, 1)]
    here, _ = _fit(some)
    if here <= _GOOD:
        return
    coordinates, points = _best_reading(some[:_SEARCHED])
    there, _ = _fit(_read(some, coordinates, points))
    if there * _BETTER > here:
        return
    reading = _COORDINATES[coordinates]
    if points != _IN_PLACE:
        # Points say where each part is found; a reader wants to know what stands where.
        standing = [_PARTS[points.index(place)] for place in range(5)]
        reading += f" of {', '.join(standing)}"
    advice = (
        "use --order xxyy (or --order xyxy if they are right as they are)"
        if (coordinates, points) == ("xxyy", _IN_PLACE)
        else f"write {_COORDINATES['xyxy']} of {', '.join(_PARTS)}, left and right as in the image "
        "(or use --order xyxy if they are right as they are)"
    )
    raise InputError(
        f"{where}: read as {_COORDINATES['xyxy']} its points are {here:.1f} pixels off the "
        f"template in the median, as {reading} only {there:.1f}: {advice}"
    )


def check_frame(faces: Numbers, orientations: NDArray[np.int64], where: str) -> None:
    """Whether points are in the pixels of photographs as they are shown, not as they are stored.

    Args:
        faces: (N, 5, 2) of photographs that are not stored upright.
        orientations: (N,) of their EXIF data, 2 to 8.
        where: the points come from, for messages.

    Raises:
        InputError: they fit much better in the pixels as stored; the message has both misfits.
    """
    shown = float(np.median(_upright_misfit(faces)))
    turned = np.stack([as_shown(*face) for face in zip(faces, orientations.tolist(), strict=True)])
    stored = float(np.median(_upright_misfit(turned)))
    about = (
        f"{where}: {len(faces)} photographs have an EXIF orientation. In the pixels as shown their "
        f"points are {shown:.1f} pixels off an upright face in the median, in those as stored "
        f"{stored:.1f}"
    )
    if shown <= _GOOD:
        return
    if stored * _BETTER <= shown:
        raise InputError(f"{about}: use --exif ignore (or --exif apply if they are as shown)")
    if shown * _BETTER > stored:
        rank_zero_warn(f"{about}; they are taken as shown, --exif ignore takes them as stored")


def as_shown(points: Points, orientation: int) -> Points:
    """Points in the pixels of a stored image turned as its EXIF orientation says, without shift."""
    if orientation >= 5:
        points = points[:, ::-1]
    signs = (-1 if orientation in (2, 3, 6, 7) else 1), (-1 if orientation in (3, 4, 7, 8) else 1)
    return points * np.array(signs)


def median_misfit(faces: list[Points]) -> float:
    """Pixels that faces are off the template in the median."""
    return _fit(np.stack(faces))[0]


def _best_reading(faces: Numbers) -> tuple[str, tuple[int, ...]]:
    """Order of coordinates and of points that fits best, upright ones before those on their side.

    A face read as its mirror image fits too, but lies on its side.
    """
    orders: list[tuple[int, ...]] = [_IN_PLACE]
    if len(faces) >= _FEW:
        orders = list(permutations(range(5)))

    def badness(reading: tuple[str, tuple[int, ...]]) -> tuple[bool, float]:
        misfit, turn = _fit(_read(faces, *reading))
        return turn > _UPRIGHT, misfit

    return min(((c, p) for c in _COORDINATES for p in orders), key=badness)


def _read(faces: Numbers, coordinates: str, points: tuple[int, ...]) -> Numbers:
    """Faces read as x1 y1 ... x5 y5, read again in another order."""
    numbers = faces.reshape(-1, 10)
    if coordinates in ("xxyy", "yyxx"):
        again = numbers.reshape(-1, 2, 5).transpose(0, 2, 1)
    else:
        again = numbers.reshape(-1, 5, 2)
    return (again[..., ::-1] if coordinates[0] == "y" else again)[:, list(points)]


def _fit(faces: Numbers) -> tuple[float, float]:
    """Median misfit in pixels at 112, and median turn in degrees."""
    product, spread = _products(faces)
    misfit = _misfit(np.abs(product), spread)
    return float(np.median(misfit)), float(np.median(np.degrees(np.abs(np.angle(product)))))


def _upright_misfit(faces: Numbers) -> Numbers:
    """Distance from the template after scale and shift, but no turn."""
    product, spread = _products(faces)
    return _misfit(np.maximum(product.real, 0), spread)


# A similarity is one complex number, see `template.similarity`.
_PLACES = TEMPLATE @ np.array([1, 1j])
_PLACES = _PLACES - _PLACES.mean()


def _products(faces: Numbers) -> tuple[NDArray[np.complex128], Numbers]:
    places = faces @ np.array([1, 1j])
    places = places - places.mean(1, keepdims=True)
    spread = np.maximum((np.abs(places) ** 2).sum(1), 1e-12)
    return (places.conj() * _PLACES).sum(1), spread


def _misfit(product: Numbers, spread: Numbers) -> Numbers:
    left = (np.abs(_PLACES) ** 2).sum() - product**2 / spread
    off: Numbers = np.sqrt(np.maximum(left, 0) / 5)
    return off
