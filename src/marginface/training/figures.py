"""Pictures of a run's verification results."""

from pathlib import Path

import torch
from matplotlib import pyplot as plt

from marginface.metrics.roc import roc_curve
from marginface.metrics.verification import PairResult
from marginface.reporting.png import save_figure


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
    save_figure(figure, path)
