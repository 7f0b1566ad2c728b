"""The picture of a head's curves."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from marginface.heads._margin import Margin
from marginface.heads.analysis.curves import head_curves
from marginface.reporting.axes import Axis, fitted
from marginface.reporting.svg_charts import SERIES, Chart, Series, line_chart, svg_file
from marginface.utils.errors import InputError
from marginface.utils.files import atomic_write

_OWN, _BETWEEN = "angle to the own center (degrees)", "angle between two centers (degrees)"
_PANELS = [  # name in HeadCurves, title, both labels, ends of the vertical axis
    ("target", "target logit / scale", _OWN, "f(theta)", (-2.5, 1.1)),
    ("implied_margin", "implied angular margin", _OWN, "arccos f - theta (degrees)", (0.0, 90.0)),
    ("boundary_margin", "margin between the boundaries of two classes", _BETWEEN, "M (degrees)",
     (0.0, 90.0)),
    ("slope", "slope (the gradient in exact mode)", _OWN, "df / dcos", (-1.0, 6.0)),
]  # fmt: skip
_IN_DEGREES = ("implied_margin", "boundary_margin")


def heads_figure(margins: dict[str, Margin], path: Path) -> None:
    """f, implied angular margin, margin between boundaries and slope of heads, as one SVG.

    Args:
        margins: by the name to print.

    Raises:
        InputError: another kind of file, or more margins than there are colors.
    """
    if path.suffix.lower() != ".svg":
        raise InputError(f"{path}: curves are drawn as SVG; give a name that ends in .svg")
    if len(margins) > SERIES:
        raise InputError(f"one picture holds {SERIES} heads, got {len(margins)}")
    degrees = torch.linspace(0, 180, 361, dtype=torch.float64)
    angles = degrees.deg2rad()
    found = {name: head_curves(margin, angles, angles) for name, margin in margins.items()}
    usual = max(float(curves.target.max()) for curves in found.values()) < 2  # QAMFace is not
    charts = []
    for attribute, title, across, up, limits in _PANELS:
        curves = {name: _values(getattr(c, attribute), attribute) for name, c in found.items()}
        y = Axis(up, *limits) if usual else fitted(up, *curves.values())
        charts.append(_panel(title, degrees.numpy(), curves, across, y))
    with atomic_write(path, "w") as file:
        file.write(svg_file(charts))


def _values(curve: torch.Tensor, attribute: str) -> NDArray[np.floating]:
    return (curve.rad2deg() if attribute in _IN_DEGREES else curve).numpy()


def _panel(
    title: str,
    degrees: NDArray[np.floating],
    curves: dict[str, NDArray[np.floating]],
    across: str,
    y: Axis,
) -> Chart:
    series = []
    for name, curve in curves.items():
        room = 1e-6 * (y.high - y.low)  # of rounding; what is outside is not drawn at the edge
        inside = (curve >= y.low - room) & (curve <= y.high + room)
        series.append(Series(name, degrees, np.where(inside, curve, np.nan)))
    return line_chart(title, series, Axis(across, 0.0, 180.0), y)
