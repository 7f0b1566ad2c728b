"""Thin wrappers that launch the kernels on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from marginface.classifier.center_step import AdamWNumbers, SGDNumbers
from marginface.classifier.kernel_inputs import Halves, Logits
from marginface.classifier.kernels import products, rows
from marginface.classifier.kernels.launcher import Launcher
from marginface.classifier.kernels.tiles import ROWS_PER_PROGRAM, Tile

_ROWS_OF_SUMS, _TILES_OF_SUMS = 16, 128  # rows of a program, and tiles that it adds at once
_HAS_ADDMM = hasattr(torch.ops.aten.addmm, "dtype_out")
_unit_rows, _batch_rows = Launcher(rows.unit_rows), Launcher(rows.batch_rows)
_scores, _cross_entropy = Launcher(products.scores), Launcher(rows.cross_entropy)
_row_factors, _weights = Launcher(rows.row_factors), Launcher(products.weights)
_project, _project_and_step = Launcher(rows.project), Launcher(rows.project_and_step)


def unit_rows(x: Tensor, index: Tensor | None, into: Halves, inverse: Tensor) -> None:
    """Fill halves and (n,) 1 / |row| from (rows, D) or from its rows of an index."""
    number = len(inverse)
    _unit_rows(
        _row_programs(number),
        (x, x if index is None else index, into.hi, into.lo, inverse),
        (number,),
        (x.shape[1], index is not None, into.split, *_whole_rows(x.shape[1])),
    )


def batch_rows(
    x: Tensor, weight: Tensor, labels: Tensor, first: int, into: Halves, row_lengths: bool,
    center_lengths: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Fill halves; (R,) 1 / |row|, product with the own center, its derivative by the cosine."""
    number, width = x.shape
    inverse, own, slope = x.new_empty(3, number).unbind()
    _batch_rows(
        _row_programs(number),
        (x, weight, labels, into.hi, into.lo, inverse, own, slope),
        (number, first, len(weight)),
        (width, into.split, row_lengths, center_lengths, *_whole_rows(width)),
    )
    return inverse, own, slope


def scores(
    q: Halves, w: Halves, position: Tensor, inverse: Tensor, center_inverse: Tensor, start: int,
    logits: Logits, threshold: Tensor | None, with_top: bool, tile: Tile,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """(tiles, R) partial sums, and the largest logits they are relative to."""
    (rows, width), n = q.hi.shape, len(w.hi)
    row_tiles, tiles = _parts(rows, tile.rows), _parts(n, tile.classes)
    sums = inverse.new_empty(tiles, rows)
    tops = torch.empty_like(sums) if with_top else None
    kind = logits.kind
    _scores(
        row_tiles * tiles,
        (
            q.hi, q.lo, w.hi, w.lo, position, inverse, center_inverse, _or(kind.limits, inverse),
            _or(kind.rate, inverse), _or(threshold, inverse), _or(tops, sums), sums,
        ),
        (rows, n, start, row_tiles, *logits.numbers),
        (
            width, q.split, kind.curve.value, logits.binary, with_top, logits.row_lengths,
            logits.center_lengths, logits.above is not None, tile.rows, tile.classes, tile.columns,
        ),
        tile.warps, tile.stages,
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
    _cross_entropy(
        _parts(rows, _ROWS_OF_SUMS),
        (sums, target, slope, value, loss, upstream, own_upstream),
        (rows, tiles, scale, 1.0 / rows),
        (_TILES_OF_SUMS, _ROWS_OF_SUMS),
    )
    return value, loss, upstream, own_upstream


def row_factors(
    upstream: Tensor, own_upstream: Tensor, own_slope: Tensor, inverse: Tensor,
    longest_center: Tensor | None, of_mean: Tensor | None, logits: Logits,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(R,) factor of the gradient weights, (R,) own weight, (1,) what undoes the power of two."""
    number = len(inverse)
    factor, own, unscale = inverse.new_empty(3, number).unbind()
    _row_factors(
        1,
        (
            upstream, own_upstream, own_slope, inverse, _or(longest_center, inverse),
            _or(of_mean, inverse), factor, own, unscale,
        ),
        (number, logits.scale, 16.0 - logits.kind.log2_largest_slope),  # float16 ends at 2^16
        (
            logits.row_lengths, longest_center is not None, of_mean is not None,
            min(_power_of_two(number), 1024),
        ),
    )  # fmt: skip
    return factor, own, unscale


def weights(
    q: Halves, w: Halves, position: Tensor, inverse: Tensor, center_inverse: Tensor, start: int,
    logits: Logits, threshold: Tensor | None, value: Tensor, factor: Tensor, own: Tensor,
    into: Halves, tile: Tile,
) -> Tensor | None:  # fmt: skip
    """Fill (R, stride) gradient weights; for a binary loss also (tiles, R) sums over the logits."""
    (rows, width), n = q.hi.shape, len(w.hi)
    row_tiles, tiles = _parts(rows, tile.rows), _parts(n, tile.classes)
    sums = inverse.new_empty(tiles, rows) if logits.binary else None
    kind = logits.kind
    _weights(
        row_tiles * tiles,
        (
            q.hi, q.lo, w.hi, w.lo, position, inverse, center_inverse, _or(kind.limits, inverse),
            _or(kind.rate, inverse), _or(threshold, inverse), value, factor, own, into.hi, into.lo,
            _or(sums, inverse),
        ),
        (rows, n, start, into.hi.stride(0), row_tiles, *logits.numbers),
        (
            width, q.split, kind.curve.value, kind.slope.value, logits.binary, logits.row_lengths,
            logits.center_lengths, logits.above is not None, tile.rows, tile.classes, tile.columns,
        ),
        tile.warps, tile.stages,
    )  # fmt: skip
    return sums


def project(
    gradient: Tensor, x: Tensor, index: Tensor | None, inverse: Tensor, unscale: Tensor,
    lengths_count: bool,
) -> None:  # fmt: skip
    """Gradients of (n, D) unit rows to those of the rows of x, in place, unscaled."""
    number, width = gradient.shape
    _project(
        _row_programs(number),
        (gradient, x, x if index is None else index, inverse, unscale),
        (number,),
        (width, index is not None, not lengths_count, *_whole_rows(width)),
    )


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
    number, width = gradient.shape
    numbers = (lr, decay, beta1, beta2, eps, scale_of_second)
    _project_and_step(
        _row_programs(number),
        (gradient, part(weight), _or(index, inverse), inverse, unscale, first, second),
        (number, *map(float, numbers)),
        (
            width, index is not None, not lengths_count, kind, step.maximize, *_whole_rows(width),
        ),
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


# Not Triton's functions for these two, which are wrapped for use in kernels as well.
def _parts(number: int, of: int) -> int:
    """How many parts of a size hold a number."""
    return -(-number // of)


def _power_of_two(number: int) -> int:
    """The least power of two that is not below a number."""
    return 1 << (number - 1).bit_length()


def _row_programs(rows: int) -> int:
    return _parts(rows, ROWS_PER_PROGRAM)


def _whole_rows(width: int) -> tuple[int, int]:
    """Rows of a program that goes over whole rows, and the power of two that holds one."""
    return ROWS_PER_PROGRAM, _power_of_two(width)


def _or(tensor: Tensor | None, unread: Tensor) -> Tensor:
    """A tensor, or another one where the kernel does not read it."""
    return unread if tensor is None else tensor
