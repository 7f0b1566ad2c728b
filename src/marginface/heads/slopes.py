"""Derivatives of curves that may have poles at cos = +-1."""

from collections.abc import Callable

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
