"""Kernels over tiles of rows x classes: sums over all other classes, gradient weights, in Triton.

Rows of the batch (R, D) and class centers (n, D) come as unit rows in float16, in the float32 grade
also with what float16 leaves over: hi hi' + hi lo' + lo hi' is a float32 product for the price of
three float16 ones. One program makes a tile; what it adds up over its classes it writes as partial
sums, so that the same bits come out each time.
"""

import triton
import triton.language as tl

from marginface.classifier.kernels.curves import changed, changed_slope, softplus


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
