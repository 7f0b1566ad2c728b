"""Pictures of results: ROC and score histogram of a verification set, curves of heads."""

import io
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from PIL import Image

from marginface.evaluation import PairResult, roc_curve
from marginface.files import atomic_write
from marginface.heads import MarginHead
from marginface.heads.curves import head_curves

mpl.use("Agg")  # files only; no window system needed

from matplotlib import pyplot as plt


def verification_figure(result: PairResult, name: str, path: Path) -> None:
    """ROC with a logarithmic FAR axis, and genuine and impostor cosines, as one PNG."""
    cosines, same = result.scores, result.same
    roc = roc_curve(cosines, same)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(roc.far.clamp(min=1e-6), roc.tar)
    left.set(
        xscale="log",
        xlim=(max(0.5 / int((~same).sum()), 1e-6), 1),
        ylim=(0, 1.01),
        xlabel="false accept rate",
        ylabel="true accept rate",
        title=f"{name}: accuracy {100 * result.accuracy:.2f} %, AUC {result.auc:.4f}",
    )
    left.grid(alpha=0.3)
    bins = torch.linspace(-1, 1, 81).numpy()
    for kind, label in ((~same, "impostor"), (same, "genuine")):
        right.hist(cosines[kind].numpy(), bins, alpha=0.6, density=True, label=label)
    right.axvline(
        result.threshold, color="black", linestyle="--", label=f"threshold {result.threshold:.3f}"
    )
    right.set(xlabel="cosine", ylabel="density", title=f"{len(same)} pairs")
    right.legend()
    _save(figure, path)


def heads_figure(heads: dict[str, MarginHead], path: Path) -> None:
    """f, implied angular margin, margin between boundaries and slope of heads, as one PNG.

    Args:
        heads: by the name to print.
    """
    degrees = torch.linspace(0, 180, 361, dtype=torch.float64)
    angles = degrees.deg2rad()
    figure, panels = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    own, between = "angle to the own centre (degrees)", "angle between two centres (degrees)"
    labels = [
        (own, "f(theta)", "target logit / scale", (-2.5, 1.1)),
        (own, "arccos f - theta (degrees)", "implied angular margin", (0, 90)),
        (between, "M (degrees)", "margin between the boundaries of two classes", (0, 90)),
        (own, "df / dcos", "slope (the gradient in exact mode)", (-1, 6)),
    ]
    highest = []
    for name, head in heads.items():
        curves = head_curves(head, angles, angles)
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
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    with atomic_write(path) as file:
        # A palette: a quarter of the bytes, and nothing to see of it in curves.
        Image.open(drawn).convert("RGB").quantize(64).save(file, format="png", optimize=True)
    plt.close(figure)
