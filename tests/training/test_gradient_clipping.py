"""Gradients are clipped together, by norm or value, and their norm is told as it was before."""

import pytest
import torch
from torch import Tensor, nn

from marginface.training.gradient_clipping import clip_gradients


def parameters() -> list[nn.Parameter]:
    """Two with gradients of norm 5 together, and one without."""
    found = [nn.Parameter(torch.zeros(size)) for size in (1, 2, 3)]
    found[0].grad, found[1].grad = torch.tensor([3.0]), torch.tensor([0.0, -4.0])
    return found


def gradients(of: list[nn.Parameter]) -> list[float]:
    return [number for p in of if p.grad is not None for number in p.grad.tolist()]


@pytest.mark.parametrize(
    ("limit", "by_value", "expected"),
    [
        (None, False, [3.0, 0.0, -4.0]),
        (10.0, False, [3.0, 0.0, -4.0]),
        (1.0, False, [0.6, 0.0, -0.8]),
        (3.5, True, [3.0, 0.0, -3.5]),
    ],
)
@pytest.mark.parametrize("tells_norm", [False, True])
def test_limits(
    limit: float | None, by_value: bool, expected: list[float], tells_norm: bool
) -> None:
    some = parameters()
    norm = clip_gradients(some, limit, by_value=by_value, tells_norm=tells_norm)
    assert gradients(some) == pytest.approx(expected, abs=1e-5)
    if not tells_norm:
        assert norm is None
        return
    assert isinstance(norm, Tensor)
    assert float(norm) == pytest.approx(5.0)
