"""The picture of a head's curves."""

from pathlib import Path

import torch
from matplotlib import pyplot as plt

from marginface.heads._margin import Margin
from marginface.heads.analysis.curves import head_curves
from marginface.reporting.png import save_figure


def heads_figure(margins: dict[str, Margin], path: Path) -> None:
    """f, implied angular margin, margin between boundaries and slope of heads, as one PNG.

    Args:
        margins: by the name to print.
    """
    degrees = torch.linspace(0, 180, 361, dtype=torch.float64)
    angles = degrees.deg2rad()
    figure, panels = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    own, between = "angle to the own center (degrees)", "angle between two centers (degrees)"
    labels = [
        (own, "f(theta)", "target logit / scale", (-2.5, 1.1)),
        (own, "arccos f - theta (degrees)", "implied angular margin", (0, 90)),
        (between, "M (degrees)", "margin between the boundaries of two classes", (0, 90)),
        (own, "df / dcos", "slope (the gradient in exact mode)", (-1, 6)),
    ]
    highest = []
    for name, margin in margins.items():
        curves = head_curves(margin, angles, angles)
        highest.append(float(curves.target.max()))
        values = [
            curves.target,
            curves.implied_margin.rad2deg(),
            curves.boundary_margin.rad2deg(),
            curves.slope,
        ]
        for axes, value in zip(panels.flat, values, strict=True):
            axes.plot(degrees, value, label=name)
    for axes, (x, y, title, limits) in zip(panels.flat, labels, strict=True):
        axes.set(xlabel=x, ylabel=y, title=title, xlim=(0, 180))
        axes.set_ylim(limits if max(highest) < 2 else None)  # QAMFace is of another size
        axes.set_xticks(range(0, 181, 30))
        axes.grid(alpha=0.3)
    panels[0, 0].legend()
    save_figure(figure, path)
