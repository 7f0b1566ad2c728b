"""Kernels over whole rows: unit rows, losses, projected gradients and steps, in Triton."""

import triton
import triton.language as tl

from marginface.classifier.kernels.curves import softplus


@triton.jit(do_not_specialize=["n"])
def unit_rows(
    X, Index, Hi, Lo, Inverse, n, D: tl.constexpr, INDEX: tl.constexpr, SPLIT: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """float32 rows to unit rows in float16, what float16 leaves over, and 1 / |row|."""
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, WIDTH)
    source = tl.load(Index + r, mask=r < n, other=0) if INDEX else r
    mask = (r < n)[:, None] & (d < D)[None, :]
    x = tl.load(X + source.to(tl.int64)[:, None] * D + d[None, :], mask=mask, other=0.0)
    inverse = 1.0 / tl.maximum(tl.sqrt(tl.sum(x * x, 1)), 1e-12)
    unit = x * inverse[:, None]
    hi = unit.to(tl.float16)
    at = r.to(tl.int64)[:, None] * D + d[None, :]
    tl.store(Hi + at, hi, mask=mask)
    if SPLIT:
        tl.store(Lo + at, (unit - hi.to(tl.float32)).to(tl.float16), mask=mask)
    tl.store(Inverse + r, inverse, mask=r < n)


@triton.jit(do_not_specialize=["R", "first", "here"])
def batch_rows(
    X, W, Labels, Hi, Lo, Inverse, Own, OwnSlope, R, first, here,
    D: tl.constexpr, SPLIT: tl.constexpr, X_LENGTHS: tl.constexpr, W_LENGTHS: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The same for the batch, with the product of each row and its own center.

    Own: the cosine, times the lengths that count; 0 where another process has the class.
    OwnSlope: these lengths, d product / d cosine.
    """
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, WIDTH)
    row = r < R
    mask = row[:, None] & (d < D)[None, :]
    at = r.to(tl.int64)[:, None] * D + d[None, :]
    x = tl.load(X + at, mask=mask, other=0.0)
    inverse = 1.0 / tl.maximum(tl.sqrt(tl.sum(x * x, 1)), 1e-12)
    unit = x * inverse[:, None]
    hi = unit.to(tl.float16)
    tl.store(Hi + at, hi, mask=mask)
    if SPLIT:
        tl.store(Lo + at, (unit - hi.to(tl.float32)).to(tl.float16), mask=mask)
    tl.store(Inverse + r, inverse, mask=row)
    label = tl.load(Labels + r, mask=row, other=0) - first
    mine = row & (label >= 0) & (label < here)
    w = tl.load(
        W + label.to(tl.int64)[:, None] * D + d[None, :],
        mask=mine[:, None] & (d < D)[None, :], other=0.0,
    )  # fmt: skip
    length = tl.maximum(tl.sqrt(tl.sum(w * w, 1)), 1e-12)
    slope = tl.where(row, 1.0, 0.0)
    if X_LENGTHS:
        slope = slope / inverse
    if W_LENGTHS:
        slope = slope * length
    own = tl.sum(unit * w, 1) / length * slope
    tl.store(Own + r, tl.where(mine, own, 0.0), mask=row)
    tl.store(OwnSlope + r, slope, mask=row)


@triton.jit(do_not_specialize=["R", "tiles"])
def cross_entropy(
    PartSum, Target, Slope, Value, Loss, Upstream, OwnUpstream, R, tiles, scale, share,
    TILES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Of (tiles, R) partial sums: log-sum-exp, softplus(it - scale target), and its gradients.

    Slope: (R,) d target / d own cosine. share: of a row in the mean.
    """
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    row = r < R
    total = tl.zeros((ROWS,), dtype=tl.float64)
    for t0 in range(0, tiles, TILES):
        t = t0 + tl.arange(0, TILES)
        at = t[:, None].to(tl.int64) * R + r[None, :]
        part = tl.load(PartSum + at, mask=(t < tiles)[:, None] & row[None, :], other=0.0)
        total += tl.sum(part.to(tl.float64), 0)
    value = tl.log(total).to(tl.float32)
    tl.store(Value + r, value, mask=row)
    x = value - scale * tl.load(Target + r, mask=row, other=0.0)
    tl.store(Loss + r, softplus(x), mask=row)
    p = share / (1.0 + tl.exp2(-x * 1.4426950408889634))
    tl.store(Upstream + r, p, mask=row)
    tl.store(OwnUpstream + r, -scale * p * tl.load(Slope + r, mask=row, other=0.0), mask=row)


@triton.jit(do_not_specialize=["R"])
def row_factors(
    Upstream, OwnUpstream, OwnSlope, Inverse, Length, OfMean, Factor, Own, Unscale,
    R, scale, log2_largest, X_LENGTHS: tl.constexpr, W_LENGTHS: tl.constexpr,
    OF_MEAN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """What the gradient weights of a row are multiplied with, so that float16 holds them.

    One power of two for all rows: dividing by it again is exact. Length: the longest center.
    OfMean: gradient of the mean that the upstream ones are of.
    """
    of_mean = tl.load(OfMean) if OF_MEAN else 1.0
    r = tl.arange(0, BLOCK)
    top = tl.zeros((BLOCK,), dtype=tl.float32)
    longest = tl.load(Length) if W_LENGTHS else 1.0
    for r0 in range(0, R, BLOCK):
        row = r + r0 < R
        u = tl.load(Upstream + r0 + r, mask=row, other=0.0) * scale * of_mean
        if X_LENGTHS:
            u = u / tl.load(Inverse + r0 + r, mask=row, other=1.0)
        own = tl.load(OwnUpstream + r0 + r, mask=row, other=0.0) * of_mean
        own *= tl.load(OwnSlope + r0 + r, mask=row, other=0.0)
        top = tl.maximum(top, tl.maximum(tl.abs(u) * longest, tl.abs(own)))
    largest = tl.max(top, 0)
    power = log2_largest - tl.ceil(tl.log2(tl.where(largest > 0.0, largest, 1.0)))
    f = tl.exp2(tl.minimum(tl.maximum(power, -100.0), 100.0))
    tl.store(Unscale, 1.0 / f)
    for r0 in range(0, R, BLOCK):
        row = r + r0 < R
        u = tl.load(Upstream + r0 + r, mask=row, other=0.0) * scale * of_mean * f
        if X_LENGTHS:
            u = u / tl.load(Inverse + r0 + r, mask=row, other=1.0)
        own = tl.load(OwnUpstream + r0 + r, mask=row, other=0.0) * of_mean
        own *= tl.load(OwnSlope + r0 + r, mask=row, other=0.0)
        tl.store(Factor + r0 + r, u, mask=row)
        tl.store(Own + r0 + r, own * f, mask=row)


@triton.jit(do_not_specialize=["n"])
def project(
    G, X, Index, Inverse, Unscale, n, D: tl.constexpr, INDEX: tl.constexpr,
    PROJECT: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Gradients of unit rows to those of the rows, in place: (g - (g . x) x) / |row|.

    Without PROJECT: g / |row|, for rows whose length counts.
    """
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, WIDTH)
    mask = (r < n)[:, None] & (d < D)[None, :]
    at = r.to(tl.int64)[:, None] * D + d[None, :]
    g = tl.load(G + at, mask=mask, other=0.0)
    inverse = tl.load(Inverse + r, mask=r < n, other=0.0)
    if PROJECT:
        source = tl.load(Index + r, mask=r < n, other=0) if INDEX else r
        x = tl.load(X + source.to(tl.int64)[:, None] * D + d[None, :], mask=mask, other=0.0)
        unit = x * inverse[:, None]
        g = g - tl.sum(g * unit, 1)[:, None] * unit
    tl.store(G + at, g * (inverse * tl.load(Unscale))[:, None], mask=mask)


@triton.jit(do_not_specialize=["n"])
def project_and_step(
    G, W, Index, Inverse, Unscale, First, Second, n, lr, decay, beta1, beta2, eps, scale_of_second,
    D: tl.constexpr, INDEX: tl.constexpr, PROJECT: tl.constexpr, STEP: tl.constexpr,
    MAXIMIZE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The same, and then an optimizer step of the rows of W and of its state, in torch's order.

    STEP "sgd": no momentum. "momentum", "nesterov": First is the buffer, beta1 the momentum, beta2
    1 - dampening. "adamw": First and Second are the moments, lr is divided by the first bias
    correction, scale_of_second 1 / sqrt of the second one, decay lr x weight decay.
    """
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, WIDTH)
    mask = (r < n)[:, None] & (d < D)[None, :]
    source = tl.load(Index + r, mask=r < n, other=0) if INDEX else r
    at = source.to(tl.int64)[:, None] * D + d[None, :]
    g = tl.load(G + r.to(tl.int64)[:, None] * D + d[None, :], mask=mask, other=0.0)
    w = tl.load(W + at, mask=mask, other=0.0)
    inverse = tl.load(Inverse + r, mask=r < n, other=0.0)
    if PROJECT:
        unit = w * inverse[:, None]
        g = g - tl.sum(g * unit, 1)[:, None] * unit
    g = g * (inverse * tl.load(Unscale))[:, None]
    if MAXIMIZE:
        g = -g
    if STEP == "adamw":
        w = w - decay * w
        first = tl.load(First + at, mask=mask, other=0.0)
        first = first + (1.0 - beta1) * (g - first)
        second = beta2 * tl.load(Second + at, mask=mask, other=0.0) + (1.0 - beta2) * g * g
        tl.store(First + at, first, mask=mask)
        tl.store(Second + at, second, mask=mask)
        tl.store(W + at, w - lr * first / (tl.sqrt(second) * scale_of_second + eps), mask=mask)
    else:
        g = g + decay * w
        if STEP != "sgd":
            first = beta1 * tl.load(First + at, mask=mask, other=0.0) + beta2 * g
            tl.store(First + at, first, mask=mask)
            g = g + beta1 * first if STEP == "nesterov" else first
        tl.store(W + at, w - lr * g, mask=mask)
