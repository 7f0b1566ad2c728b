"""What the page of a run draws besides its log: the head's curve, ROC and scores by pairs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marginface.heads import Margin
from marginface.heads.analysis.curves import head_curves
from marginface.metrics.roc import roc_curve
from marginface.metrics.verification import PairResult
from marginface.reporting.svg_charts import common_edges, thinned


@torch.no_grad()
def head_curve(margin: Margin) -> dict[str, list[float]]:
    """f over the angle to the own center in degrees, as plain numbers."""
    degrees = torch.arange(0, 181, dtype=torch.float64)
    angles = degrees.deg2rad()
    return {
        "degrees": degrees.tolist(),
        "target": head_curves(margin, angles, angles[:2]).target.tolist(),
    }


def validation_curves(results: Mapping[str, PairResult]) -> dict[str, dict[str, Any]]:
    """ROC and histograms of the scores of every verification set, as plain numbers."""
    return {name: _curves(result) for name, result in results.items()}


def _curves(result: PairResult) -> dict[str, Any]:
    roc = roc_curve(result.scores, result.same)
    kept = thinned(roc.tar.numpy())
    genuine, impostor = (result.scores[kind].numpy() for kind in (result.same, ~result.same))
    edges = common_edges([genuine, impostor])
    return {
        "far": _short(roc.far[torch.from_numpy(kept)]),
        "tar": _short(roc.tar[torch.from_numpy(kept)]),
        "edges": _short(edges),
        "genuine": _short(np.histogram(genuine, edges)[0] / len(genuine)),
        "impostor": _short(np.histogram(impostor, edges)[0] / len(impostor)),
        "genuine_pairs": len(genuine),
        "impostor_pairs": len(impostor),
        "threshold": result.threshold,
    }


def _short(values: Tensor | NDArray[Any]) -> list[float]:
    """More digits cannot be seen."""
    return [float(f"{value:.6g}") for value in values.tolist()]
