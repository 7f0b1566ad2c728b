"""X2-Softmax beyond what holds for all heads."""

import pytest
import torch

from marginface.heads import create_head
from marginface.heads._head import MarginHead
from marginface.utils.errors import InputError


def make(**parameters: object) -> MarginHead:
    return create_head("x2softmax", embedding_size=4, num_classes=3, **parameters)


def test_values_of_the_reference_table() -> None:
    cosine = torch.tensor([1, 0.95, 0.8, 0.5, 0.2, 0, -0.2, -0.5, -0.9, -1], dtype=torch.float64)
    expected = torch.tensor(
        [0.6500, 0.5592, 0.2773, -0.3370, -1.0378, -1.5707, -2.1765, -3.2978, -5.8652, -8.2326],
        dtype=torch.float64,
    )
    torch.testing.assert_close(make().target_logit(cosine), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slope_at_one_is_the_limit(dtype: torch.dtype) -> None:
    slope = make().slope(torch.tensor([1.0], dtype=dtype))
    assert float(slope) == pytest.approx(1.8, rel=1e-7)


def test_slope_joins_its_series_smoothly() -> None:
    u = torch.logspace(-8, -2, 200, dtype=torch.float64)
    slope = make().slope(1 - u)
    theta = 2 * (u / 2).sqrt().asin()
    torch.testing.assert_close(slope, 1.8 * theta / theta.sin(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("h", [0.0, -0.1])
def test_falls_strictly_with_the_angle(h: float) -> None:
    cosine = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    assert (make(h=h).target_logit(cosine).diff() > 0).all()


def test_validation() -> None:
    with pytest.raises(InputError, match="a must be negative.*got a=0.1"):
        make(a=0.1)
    with pytest.raises(InputError, match="<= 1, got k=1.5"):
        make(k=1.5)
    with pytest.warns(UserWarning, match="h=0.2 > 0"):
        make(h=0.2)
