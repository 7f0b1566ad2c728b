"""Pictures of results: ROC and score histogram of a verification set, curves of heads."""

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from marginface.evaluation import PairResult, roc_curve
from marginface.files import atomic_write
from marginface.heads import MarginHead

mpl.use("Agg")  # files only; no window system needed

from matplotlib import pyplot as plt


def verification_figure(
    cosines: Tensor, same: Tensor, result: PairResult, name: str, path: Path
) -> None:
    """ROC with a logarithmic FAR axis, and genuine and impostor cosines, as one PNG."""
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


def heads_figure(heads: list[MarginHead], path: Path) -> None:
    """Target logit f(theta) and implied cosine margin cos(theta) - f of each head, as one PNG."""
    degrees = torch.linspace(0, 120, 241, dtype=torch.float64)
    cosine = degrees.deg2rad().cos()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for head in heads:
        target = head.target_logit(cosine)
        left.plot(degrees, target, label=head.name)
        right.plot(degrees, cosine - target, label=head.name)
    left.set(
        xlabel="angle to the class centre (degrees)",
        ylabel="target logit / scale",
        title="target logit",
    )
    right.set(
        xlabel="angle to the class centre (degrees)",
        ylabel="cos - target logit",
        title="cosine margin",
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
    left.legend()
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
