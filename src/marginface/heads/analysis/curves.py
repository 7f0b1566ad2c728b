"""What a head does to an angle, in float64: f, implied margin, slope, distance of two boundaries.

All angles are in radians. Curves are the published ones: without annealing (SphereFace), with the
mean margin (ElasticFace), for the nearest center at 90 degrees (DynArcFace), for norms of sqrt(D).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marginface.heads._margin import Margin

EMBEDDING_SIZE = 512  # curves that need the norm of an embedding are drawn for its square root


@dataclass(frozen=True)
class HeadCurves:
    """Curves over angles theta to the own center and Phi between two centers; NaN is undefined."""

    theta: Tensor
    target: Tensor  # f(theta)
    implied_margin: Tensor  # arccos f - theta, where -1 <= f <= 1
    slope: Tensor  # df/dcos
    phi: Tensor
    boundary_margin: Tensor  # M(Phi)


def head_curves(margin: Margin, theta: Tensor, phi: Tensor) -> HeadCurves:
    """All curves of a margin.

    Args:
        theta: (n,) in [0, pi].
        phi: (m,) in [0, pi].
    """
    cosine = theta.double().cos()
    target = margin.target_logit(cosine, **_inputs(margin)).detach()
    return HeadCurves(
        theta,
        target,
        implied_margin(target, theta.double()),
        margin.slope(cosine, **_inputs(margin)).detach(),
        phi,
        boundary_margin(margin, phi),
    )


def implied_margin(target: Tensor, theta: Tensor) -> Tensor:
    """m(theta) = arccos f - theta; NaN where f is not a cosine."""
    inside = target.abs() <= 1
    return torch.where(inside, target.clamp(-1, 1).arccos() - theta, math.nan)


def boundary_margin(margin: Margin, phi: Tensor) -> Tensor:
    """M(Phi) = Phi - 2 theta*: the angle between the decision boundaries of two classes.

    theta* is where a sample between two centers Phi apart just belongs to its own, f(theta*) =
    g(Phi - theta*); NaN where not even theta = 0 does.
    """
    phi = phi.double()

    def surplus(theta: Tensor) -> Tensor:
        own, other = theta.cos(), (phi - theta).cos()
        if margin.changes_negatives:
            other = margin.negative_curve(other, own)
        return margin.target_logit(own, **_inputs(margin)).detach() - other

    low, high = torch.zeros_like(phi), phi.clone()
    reachable = surplus(low) >= 0
    for _ in range(60):
        middle = (low + high) / 2
        inside = surplus(middle) >= 0
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return torch.where(reachable, phi - 2 * low, math.nan)


def _inputs(margin: Margin) -> dict[str, Any]:
    return margin.typical_curve_inputs(EMBEDDING_SIZE, 2) if margin.needs_norm else {}
