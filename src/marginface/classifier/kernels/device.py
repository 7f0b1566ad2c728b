"""The kernels, in Triton: unit rows, sums over all other classes, gradient weights, projections.

Rows of the batch (R, D) and class centers (n, D) come as unit rows in float16, in the float32 grade
also with what float16 leaves over: hi hi' + hi lo' + lo hi' is a float32 product for the price of
three float16 ones. One program makes a tile of rows x classes; what it adds up over its classes it
writes as partial sums, so that the same bits come out each time.

exp2 is what the hardware has, so logits are multiplied with 1.4426950408889634 = 1 / ln 2 before
it. Constants are literals, and kinds of negatives are strings: Triton compares a module's globals
at every launch.
"""

import triton
import triton.language as tl


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


@triton.jit
def tile_of_cosines(
    Q, Ql, W, Wl, rb, rn, R, n, D: tl.constexpr, SPLIT: tl.constexpr,
    BB: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """(BB, BN) float32 of q w'. Rows past the end repeat the last one: the caller masks."""
    acc = tl.zeros((BB, BN), dtype=tl.float32)
    k = tl.arange(0, BK)
    q_at = tl.minimum(rb, R - 1)[:, None] * D + k[None, :]
    w_at = tl.minimum(rn, n - 1)[None, :].to(tl.int64) * D + k[:, None]
    for k0 in range(0, D, BK):
        if D % BK == 0:
            q = tl.load(Q + q_at + k0)
            w = tl.load(W + w_at + k0)
            acc = tl.dot(q, w, acc)
            if SPLIT:
                acc = tl.dot(q, tl.load(Wl + w_at + k0), acc)
                acc = tl.dot(tl.load(Ql + q_at + k0), w, acc)
        else:
            inside = k + k0 < D
            q = tl.load(Q + q_at + k0, mask=inside[None, :], other=0.0)
            w = tl.load(W + w_at + k0, mask=inside[:, None], other=0.0)
            acc = tl.dot(q, w, acc)
            if SPLIT:
                wl = tl.load(Wl + w_at + k0, mask=inside[:, None], other=0.0)
                ql = tl.load(Ql + q_at + k0, mask=inside[None, :], other=0.0)
                acc = tl.dot(q, wl, acc)
                acc = tl.dot(ql, w, acc)
    return acc


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


@triton.jit
def tile_of_logits(
    acc, rb, rn, row, column, Inverse, WInverse, Limit, Rate, scale, first, second, above,
    KIND: tl.constexpr, X_LENGTHS: tl.constexpr, W_LENGTHS: tl.constexpr, FILTER: tl.constexpr,
):  # fmt: skip
    """Cosines to logits, in natural units."""
    if FILTER:
        acc = tl.where(acc > above, 0.0, acc)
    if KIND == "plain":
        z = acc * scale
        if X_LENGTHS:
            z = z / tl.load(Inverse + rb, mask=row, other=1.0)[:, None]
        if W_LENGTHS:
            z = z / tl.load(WInverse + rn, mask=column, other=1.0)[None, :]
        return z
    c = tl.minimum(tl.maximum(acc, -1.0), 1.0)
    limit = c
    rate = c
    if KIND == "raised" or KIND == "curricular":
        limit = tl.load(Limit + rb, mask=row, other=2.0)[:, None]
    if KIND == "curricular":
        rate = tl.load(Rate)
    return scale * changed(c, limit, rate, first, second, KIND)


@triton.jit(do_not_specialize=["R", "n", "start", "row_tiles"])
def scores(
    Q, Ql, W, Wl, Position, Inverse, WInverse, Limit, Rate, Threshold, PartTop, PartSum,
    R, n, start, row_tiles, scale, first, second, above,
    D: tl.constexpr, SPLIT: tl.constexpr, KIND: tl.constexpr, BINARY: tl.constexpr,
    TOP: tl.constexpr, X_LENGTHS: tl.constexpr, W_LENGTHS: tl.constexpr, FILTER: tl.constexpr,
    BB: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Row sums over a tile of classes, the own class left out.

    Of exp(logit), with TOP relative to the largest of the tile; BINARY: of softplus(logit - b).
    start: first class of the chunk, in the numbers of Position.
    """
    pid = tl.program_id(0)
    pb, pn = pid % row_tiles, pid // row_tiles  # neighbors share the classes
    rb, rn = pb * BB + tl.arange(0, BB), pn * BN + tl.arange(0, BN)
    row, column = rb < R, rn < n
    acc = tile_of_cosines(Q, Ql, W, Wl, rb, rn, R, n, D, SPLIT, BB, BN, BK)
    z = tile_of_logits(
        acc, rb, rn, row, column, Inverse, WInverse, Limit, Rate, scale, first, second, above,
        KIND, X_LENGTHS, W_LENGTHS, FILTER,
    )  # fmt: skip
    own = tl.load(Position + rb, mask=row, other=-1) - start
    counts = column[None, :] & (rn[None, :] != own[:, None])
    out = pn.to(tl.int64) * R + rb
    if BINARY:
        values = softplus(z - tl.load(Threshold))
    else:
        z = z * 1.4426950408889634
        if TOP:
            z = tl.where(counts, z, -1e30)
            top = tl.max(z, 1)
            tl.store(PartTop + out, top, mask=row)
            z = z - top[:, None]
        values = tl.exp2(z)
    # where, not times 0: the own logit may have no finite exponential
    tl.store(PartSum + out, tl.sum(tl.where(counts, values, 0.0), 1), mask=row)


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


@triton.jit(do_not_specialize=["R", "n", "start", "row_tiles"])
def weights(
    Q, Ql, W, Wl, Position, Inverse, WInverse, Limit, Rate, Threshold, Value, Factor, Own, P, Pl,
    PartSum, R, n, start, stride, row_tiles, scale, first, second, above,
    D: tl.constexpr, SPLIT: tl.constexpr, KIND: tl.constexpr, SLOPE: tl.constexpr,
    BINARY: tl.constexpr, X_LENGTHS: tl.constexpr, W_LENGTHS: tl.constexpr, FILTER: tl.constexpr,
    BB: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """(R, n) gradients of the cosines, times the factor, in float16 and what that leaves over.

    The own column holds the gradient of the own cosine, so that no class needs code of its own.
    BINARY: also row sums of the gradients of the logits, for that of the threshold.
    """
    pid = tl.program_id(0)
    pb, pn = pid % row_tiles, pid // row_tiles
    rb, rn = pb * BB + tl.arange(0, BB), pn * BN + tl.arange(0, BN)
    row, column = rb < R, rn < n
    acc = tile_of_cosines(Q, Ql, W, Wl, rb, rn, R, n, D, SPLIT, BB, BN, BK)
    z = tile_of_logits(
        acc, rb, rn, row, column, Inverse, WInverse, Limit, Rate, scale, first, second, above,
        KIND, X_LENGTHS, W_LENGTHS, FILTER,
    )  # fmt: skip
    own = rn[None, :] == (tl.load(Position + rb, mask=row, other=-1) - start)[:, None]
    if BINARY:
        p = 1.0 / (1.0 + tl.exp2((tl.load(Threshold) - z) * 1.4426950408889634))
        counted = tl.where(column[None, :] & (own == 0), p, 0.0)
        tl.store(PartSum + pn.to(tl.int64) * R + rb, tl.sum(counted, 1), mask=row)
    else:
        p = tl.exp2((z - tl.load(Value + rb, mask=row, other=0.0)[:, None]) * 1.4426950408889634)
    p *= tl.load(Factor + rb, mask=row, other=0.0)[:, None]
    if W_LENGTHS:
        p = p / tl.load(WInverse + rn, mask=column, other=1.0)[None, :]
    if KIND != "plain":
        c = acc
        if FILTER:
            c = tl.where(acc > above, 0.0, acc)
        c = tl.minimum(tl.maximum(c, -1.0), 1.0)
        limit = c
        rate = c
        if KIND == "raised" or KIND == "curricular":
            limit = tl.load(Limit + rb, mask=row, other=2.0)[:, None]
        if KIND == "curricular":
            rate = tl.load(Rate)
        p *= changed_slope(c, limit, rate, first, second, KIND, SLOPE)
        p = tl.minimum(tl.maximum(p, -65504.0), 65504.0)  # at a pole of the slope
    if FILTER:
        p = tl.where(acc > above, 0.0, p)
    p = tl.where(own, tl.load(Own + rb, mask=row, other=0.0)[:, None], p)
    p = tl.where(column[None, :], p, 0.0)  # after own: a class of the next chunk may be there
    hi = p.to(tl.float16)
    at = rb[:, None] * stride + rn[None, :]  # a chunk has less than 2^31 numbers
    mask = row[:, None] & (rn < stride)[None, :]
    tl.store(P + at, hi, mask=mask)
    if SPLIT:
        tl.store(Pl + at, (p - hi.to(tl.float32)).to(tl.float16), mask=mask)


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
