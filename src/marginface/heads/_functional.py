"""cos(theta + m), and cos(m theta) made monotone.

Margins are floats in radians, or tensors with one margin for each cosine.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor


def derivative(function: Callable[[Tensor], Tensor], cosine: Tensor) -> Tensor:
    """d function / d cosine of an elementwise function, taken away from the poles at +-1."""
    with torch.enable_grad():
        inside = away_from_poles(cosine).requires_grad_()
        (slope,) = torch.autograd.grad(function(inside).sum(), inside)
    return slope


def away_from_poles(cosine: Tensor) -> Tensor:
    """Cosines no nearer to +-1, where slopes may be infinite, than 1e-7 (float64: 1e-14)."""
    limit = 1.0 - (1e-14 if cosine.dtype == torch.float64 else 1e-7)
    return cosine.detach().clamp(-limit, limit)


EasyMargin = Literal["none", "monotone", "easy"]


def add_angle(cosine: Tensor, margin: float | Tensor, easy_margin: EasyMargin = "none") -> Tensor:
    """cos(theta + margin), margin in radians.

    Past theta + margin = pi: "none" lets the cosine rise again (insightface since 2022-12);
    "monotone" continues with cos - margin sin(margin) (insightface 2021, TFace, CurricularFace).
    "easy" applies the margin only below 90 degrees (MagFace).
    """
    cos_m, m_sin_m, sin_m = _of_margin(margin)
    shifted = cosine * cos_m - sine_of(cosine) * sin_m
    if easy_margin == "none":
        return shifted
    if easy_margin == "easy":
        return torch.where(cosine > 0, shifted, cosine)
    past_pi = cosine <= -cos_m  # cos(pi - margin)
    return torch.where(past_pi, cosine - m_sin_m, shifted)


def _of_margin(margin: float | Tensor) -> tuple[Any, Any, Any]:
    """cos(m), m sin(m), sin(m): of a float as floats, so that no device has to be waited for."""
    if isinstance(margin, Tensor):
        sine = margin.sin()
        return margin.cos(), margin * sine, sine
    return math.cos(margin), margin * math.sin(margin), math.sin(margin)


def multiply_angle(cosine: Tensor, factor: float) -> Tensor:
    """psi = (-1)^k cos(factor theta) - 2k with k = floor(factor theta / pi): falls over [0, pi].

    SphereFace's extension of cos(m theta), arXiv 1704.08063, for any factor >= 1.
    """
    angle = factor * cosine.arccos()
    turns = (angle.detach() / math.pi).floor()
    return (1 - 2 * turns.remainder(2)) * angle.cos() - 2 * turns


def sine_of(cosine: Tensor) -> Tensor:
    """sin(theta) for theta in [0, pi], without loss of digits near +-1."""
    return ((1 - cosine) * (1 + cosine)).clamp(min=0).sqrt()
