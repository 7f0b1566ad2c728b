"""Curves of cosines and logits that the kernels compute in registers, in Triton.

Constants are literals, and kinds of negatives are strings: Triton compares a module's globals at
every launch. exp2 is what the hardware has: 1.4426950408889634 is 1 / ln 2.
"""

import triton
import triton.language as tl


@triton.jit
def arccos(x):
    """For |x| <= 1, to 2e-8 (Abramowitz and Stegun 4.4.46): Triton's core has none."""
    a = tl.abs(x)
    p = -0.0012624911 * a + 0.0066700901
    p = p * a - 0.0170881256
    p = p * a + 0.0308918810
    p = p * a - 0.0501743046
    p = p * a + 0.0889789874
    p = p * a - 0.2145988016
    p = p * a + 1.5707963050
    p = p * tl.sqrt(1.0 - a)
    return tl.where(x < 0, 3.141592653589793 - p, p)


@triton.jit
def softplus(z):
    """log(1 + exp(z))."""
    e = tl.exp2(-tl.abs(z) * 1.4426950408889634)
    w = 1.0 + e
    # log(w) e / (w - 1) is log(1 + e) to all digits, for an e of which 1 + e keeps only some.
    small = tl.where(w == 1.0, e, tl.log(w) * (e / tl.where(w == 1.0, 1.0, w - 1.0)))
    return tl.maximum(z, 0.0) + small


@triton.jit
def changed(c, limit, rate, first, second, KIND: tl.constexpr):
    """g(c), what replaces the cosine of another class."""
    if KIND == "raised":
        return tl.where(c > limit, first * c + second, c)
    if KIND == "curricular":
        return tl.where(c > limit, c * (rate + c), c)
    if KIND == "circle":
        return tl.maximum(c + first, 0.0) * (c - first)
    if KIND == "power":
        half = tl.maximum(0.5 * (c + 1.0), 1e-30)
        return 2.0 * tl.exp2(first * tl.log2(half)) - 1.0 + second
    if KIND == "angle":
        return 1.0 - 0.6366197723675814 * arccos(c)
    if KIND == "squared_angle":
        angle = 6.283185307179586 - arccos(c)
        return angle * angle
    return c


@triton.jit
def changed_slope(c, limit, rate, first, second, KIND: tl.constexpr, SLOPE: tl.constexpr):
    """dg/dc, or what passes for it."""
    if SLOPE == "one":
        return tl.full(c.shape, 1.0, tl.float32)
    if KIND == "circle":
        if SLOPE == "of_constant_weight":
            return tl.maximum(c + first, 0.0)
        return tl.where(c + first > 0.0, 2.0 * c, 0.0)
    if KIND == "raised":
        return tl.where(c > limit, first, 1.0)
    if KIND == "curricular":
        return tl.where(c > limit, rate + 2.0 * c, 1.0)
    if KIND == "power":
        half = tl.maximum(0.5 * (c + 1.0), 1e-30)
        return first * tl.exp2((first - 1.0) * tl.log2(half))
    if KIND == "angle" or KIND == "squared_angle":
        inside = tl.minimum(tl.maximum(c, -0.9999999), 0.9999999)  # away from the poles
        sine = tl.sqrt((1.0 - inside) * (1.0 + inside))
        if KIND == "angle":
            return 0.6366197723675814 / sine
        return 2.0 * (6.283185307179586 - arccos(inside)) / sine
    return tl.full(c.shape, 1.0, tl.float32)
