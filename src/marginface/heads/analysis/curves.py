"""What a head does to an angle, in float64: f, implied margin, slope, distance of two boundaries.

All angles are in radians. Curves are the published ones: without annealing (SphereFace), with the
mean margin (ElasticFace), for the nearest center at 90 degrees (DynArcFace), for norms of sqrt(D).
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marginface.heads._head import MarginHead


@dataclass(frozen=True)
class HeadCurves:
    """Curves over angles theta to the own center and Phi between two centers; NaN is undefined."""

    theta: Tensor
    target: Tensor  # f(theta)
    implied_margin: Tensor  # arccos f - theta, where -1 <= f <= 1
    slope: Tensor  # df/dcos
    phi: Tensor
    boundary_margin: Tensor  # M(Phi)


def head_curves(head: MarginHead, theta: Tensor, phi: Tensor) -> HeadCurves:
    """All curves of a head.

    Args:
        theta: (n,) in [0, pi].
        phi: (m,) in [0, pi].
    """
    cosine = theta.double().cos()
    target = head.target_logit(cosine, **_facts(head)).detach()
    return HeadCurves(
        theta,
        target,
        implied_margin(target, theta.double()),
        head.slope(cosine, **_facts(head)).detach(),
        phi,
        boundary_margin(head, phi),
    )


def implied_margin(target: Tensor, theta: Tensor) -> Tensor:
    """m(theta) = arccos f - theta; NaN where f is no cosine."""
    inside = target.abs() <= 1
    return torch.where(inside, target.clamp(-1, 1).arccos() - theta, math.nan)


def boundary_margin(head: MarginHead, phi: Tensor) -> Tensor:
    """M(Phi) = Phi - 2 theta*: the angle between the decision boundaries of two classes.

    theta* is where a sample between two centers Phi apart just belongs to its own, f(theta*) =
    g(Phi - theta*); NaN where not even theta = 0 does.
    """
    phi = phi.double()

    def surplus(theta: Tensor) -> Tensor:
        own, other = theta.cos(), (phi - theta).cos()
        if head.changes_negatives:
            other = head.negative_curve(other, own)
        return head.target_logit(own, **_facts(head)).detach() - other

    low, high = torch.zeros_like(phi), phi.clone()
    reachable = surplus(low) >= 0
    for _ in range(60):
        middle = (low + high) / 2
        inside = surplus(middle) >= 0
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return torch.where(reachable, phi - 2 * low, math.nan)


def _facts(head: MarginHead) -> dict[str, Any]:
    return head.typical_curve_inputs() if head.needs_norm else {}
