"""Thin wrappers that launch the kernels on tensors."""

from __future__ import annotations

import os

import torch
import triton
from torch import Tensor

from marginface.classifier.center_step import AdamWNumbers, SGDNumbers
from marginface.classifier.kernel_inputs import Halves, Logits
from marginface.classifier.kernels import device
from marginface.classifier.kernels.tiles import ROWS_PER_PROGRAM, Tile

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_ROWS_OF_SUMS, _TILES_OF_SUMS = 16, 128  # rows of a program, and tiles that it adds at once
_HAS_ADDMM = hasattr(torch.ops.aten.addmm, "dtype_out")


def unit_rows(x: Tensor, index: Tensor | None, into: Halves, inverse: Tensor) -> None:
    """Fill halves and (n,) 1 / |row| from (rows, D) or from its rows of an index."""
    device.unit_rows[_row_programs(len(inverse))](
        x, x if index is None else index, into.hi, into.lo, inverse, len(inverse),
        x.shape[1], index is not None, into.split, ROWS_PER_PROGRAM,
        triton.next_power_of_2(x.shape[1]),
    )  # fmt: skip


def batch_rows(
    x: Tensor, weight: Tensor, labels: Tensor, first: int, into: Halves, row_lengths: bool,
    center_lengths: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Fill halves; (R,) 1 / |row|, product with the own center, its derivative by the cosine."""
    inverse, own, slope = x.new_empty(3, len(x)).unbind()
    device.batch_rows[_row_programs(len(x))](
        x, weight, labels, into.hi, into.lo, inverse, own, slope, len(x), first, len(weight),
        x.shape[1], into.split, row_lengths, center_lengths,
        ROWS_PER_PROGRAM, triton.next_power_of_2(x.shape[1]),
    )  # fmt: skip
    return inverse, own, slope


def scores(
    q: Halves, w: Halves, position: Tensor, inverse: Tensor, center_inverse: Tensor, start: int,
    logits: Logits, threshold: Tensor | None, with_top: bool, tile: Tile,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """(tiles, R) partial sums, and the largest logits they are relative to."""
    (rows, width), n = q.hi.shape, len(w.hi)
    row_tiles, tiles = triton.cdiv(rows, tile.rows), triton.cdiv(n, tile.classes)
    sums = inverse.new_empty(tiles, rows)
    tops = torch.empty_like(sums) if with_top else None
    kind, no = logits.kind, inverse  # `no`: a pointer that is not read
    device.scores[(row_tiles * tiles,)](
        q.hi, q.lo, w.hi, w.lo, position, inverse, center_inverse,
        no if kind.limits is None else kind.limits, no if kind.rate is None else kind.rate,
        no if threshold is None else threshold, sums if tops is None else tops, sums,
        rows, n, start, row_tiles, logits.scale, kind.first, kind.second, logits.above or 0.0,
        width, q.split, kind.curve.value, logits.binary, with_top,
        logits.row_lengths, logits.center_lengths, logits.above is not None,
        tile.rows, tile.classes, tile.columns, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return sums, tops


def cross_entropy(
    sums: Tensor, target: Tensor, slope: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(R,) log-sum-exp of (tiles, R) sums, losses, and gradients of their mean by both cosines.

    Args:
        target: (R,) unscaled target logits.
        slope: (R,) their derivatives by the own cosine.
    """
    tiles, rows = sums.shape
    value, loss, upstream, own_upstream = sums.new_empty(4, rows).unbind()
    device.cross_entropy[(triton.cdiv(rows, _ROWS_OF_SUMS),)](
        sums, target, slope, value, loss, upstream, own_upstream, rows, tiles, scale, 1.0 / rows,
        _TILES_OF_SUMS, _ROWS_OF_SUMS,
    )  # fmt: skip
    return value, loss, upstream, own_upstream


def row_factors(
    upstream: Tensor, own_upstream: Tensor, own_slope: Tensor, inverse: Tensor,
    longest_center: Tensor | None, of_mean: Tensor | None, logits: Logits,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(R,) factor of the gradient weights, (R,) own weight, (1,) what undoes the power of two."""
    factor, own = inverse.new_empty(2, len(inverse)).unbind()
    unscale = inverse.new_empty(1)
    # 2^16 is the end of float16.
    log2_largest = 16.0 - logits.kind.log2_largest_slope
    block = min(triton.next_power_of_2(len(inverse)), 1024)
    device.row_factors[(1,)](
        upstream, own_upstream, own_slope, inverse,
        inverse if longest_center is None else longest_center,
        inverse if of_mean is None else of_mean, factor, own, unscale,
        len(inverse), logits.scale, log2_largest,
        logits.row_lengths, longest_center is not None, of_mean is not None, block,
    )  # fmt: skip
    return factor, own, unscale


def weights(
    q: Halves, w: Halves, position: Tensor, inverse: Tensor, center_inverse: Tensor, start: int,
    logits: Logits, threshold: Tensor | None, value: Tensor, factor: Tensor, own: Tensor,
    into: Halves, tile: Tile,
) -> Tensor | None:  # fmt: skip
    """Fill (R, stride) gradient weights; for a binary loss also (tiles, R) sums over the logits."""
    (rows, width), n = q.hi.shape, len(w.hi)
    row_tiles, tiles = triton.cdiv(rows, tile.rows), triton.cdiv(n, tile.classes)
    sums = inverse.new_empty(tiles, rows) if logits.binary else None
    kind, no = logits.kind, inverse
    device.weights[(row_tiles * tiles,)](
        q.hi, q.lo, w.hi, w.lo, position, inverse, center_inverse,
        no if kind.limits is None else kind.limits, no if kind.rate is None else kind.rate,
        no if threshold is None else threshold, value, factor, own, into.hi, into.lo,
        no if sums is None else sums,
        rows, n, start, into.hi.stride(0), row_tiles, logits.scale, kind.first, kind.second,
        logits.above or 0.0,
        width, q.split, kind.curve.value, kind.slope.value, logits.binary,
        logits.row_lengths, logits.center_lengths, logits.above is not None,
        tile.rows, tile.classes, tile.columns, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return sums


def project(
    gradient: Tensor, x: Tensor, index: Tensor | None, inverse: Tensor, unscale: Tensor,
    lengths_count: bool,
) -> None:  # fmt: skip
    """Gradients of (n, D) unit rows to those of the rows of x, in place, unscaled."""
    width = gradient.shape[1]
    device.project[_row_programs(len(gradient))](
        gradient, x, x if index is None else index, inverse, unscale, len(gradient),
        width, index is not None, not lengths_count, ROWS_PER_PROGRAM,
        triton.next_power_of_2(width),
    )  # fmt: skip


def project_and_step(
    gradient: Tensor, weight: Tensor, rows: slice | Tensor, inverse: Tensor, unscale: Tensor,
    lengths_count: bool, step: SGDNumbers | AdamWNumbers,
) -> None:  # fmt: skip
    """Gradients of (n, D) unit rows to an optimizer step of these rows of the centers, in place."""
    index = rows if isinstance(rows, Tensor) else None

    def part(of: Tensor | None) -> Tensor:
        if of is None:
            return weight
        return of if isinstance(rows, Tensor) else of[rows]

    if isinstance(step, AdamWNumbers):
        kind, first, second = "adamw", part(step.exp_avg), part(step.exp_avg_sq)
        lr, decay = step.lr / (1 - step.beta1**step.done), step.lr * step.weight_decay
        beta1, beta2, eps = step.beta1, step.beta2, step.eps
        scale_of_second = (1 - step.beta2**step.done) ** -0.5
    else:
        kind = "sgd" if not step.momentum else "nesterov" if step.nesterov else "momentum"
        first = second = part(step.momentum_buffer)
        lr, decay, eps, scale_of_second = step.lr, step.weight_decay, 0.0, 0.0
        beta1, beta2 = step.momentum, 1.0 - step.dampening
    width = gradient.shape[1]
    device.project_and_step[_row_programs(len(gradient))](
        gradient, part(weight), gradient if index is None else index, inverse, unscale, first,
        second, len(gradient), float(lr), float(decay), float(beta1), float(beta2), float(eps),
        float(scale_of_second), width, index is not None, not lengths_count, kind, step.maximize,
        ROWS_PER_PROGRAM, triton.next_power_of_2(width),
    )  # fmt: skip


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """float16 operands, float32 sums and result."""
    if not a.is_cuda:  # the interpreter's device; torch has no such product there
        return torch.mm(a.float(), b.float(), out=out)
    if out is None:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.mm(a, b, out_dtype=torch.float32, out=out)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """total + a b, in place."""
    if a.is_cuda and _HAS_ADDMM:
        return torch.ops.aten.addmm.dtype_out(total, a, b, torch.float32, out=total)
    return total.add_(product(a, b))


def _row_programs(rows: int) -> tuple[int]:
    return (triton.cdiv(rows, ROWS_PER_PROGRAM),)
