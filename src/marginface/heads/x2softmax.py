"""Xu et al., "X2-Softmax: Margin Adaptive Loss Function", arXiv 2312.05281, 2023."""

import warnings

import torch
from torch import Tensor

from marginface.heads._functional import away_from_poles, sine_of
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head
from marginface.utils.errors import InputError


@register_head("x2softmax")
class X2Softmax(Margin):
    """Quadratic in the angle: f = a (theta - h)^2 + k, so the margin adapts to the angle.

    Defaults and gradient are the official run's. k <= 1 is the peak, h in radians moves it.
    """

    falls_with_angle = True

    def __init__(
        self,
        *,
        scale: float = 64.0,
        a: float = -0.9,
        h: float = 0.0,
        k: float = 0.65,
        margin_gradient: MarginGradient = "straight_through",
    ) -> None:
        super().__init__(scale, margin_gradient)
        if not a < 0:
            raise InputError(f"x2softmax: a must be negative, or the logit would rise, got a={a}")
        if not k <= 1:
            raise InputError(f"x2softmax: k, the largest target logit, must be <= 1, got k={k}")
        if h > 0:
            warnings.warn(
                f"x2softmax: h={h} > 0 makes the logit fall again for angles below h and punishes "
                "well aligned samples; the official run uses h=0",
                stacklevel=2,
            )
        self.a, self.h, self.k = a, h, k

    def curve(self, cosine: Tensor) -> Tensor:
        angle = cosine.arccos()
        return self.a * (angle - self.h if self.h else angle).square() + self.k

    def slope(self, cosine: Tensor, **inputs: object) -> Tensor:
        """-2a (theta - h) / sin(theta); at cos = 1 the limit -2a for h = 0, a pole otherwise."""
        inside = away_from_poles(cosine)
        sine, u = sine_of(inside), 1 - cosine
        # theta / sin(theta) = 1 + u/3 + 2u^2/15 + ... (u = 1 - cos): exact where 0/0 loses digits.
        ratio = torch.where(u < 1e-4, 1 + u / 3 + 2 * u**2 / 15, inside.arccos() / sine)
        return -2 * self.a * (ratio - self.h / sine)
