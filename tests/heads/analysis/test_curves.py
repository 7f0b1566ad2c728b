"""Implied margins and boundaries against the numbers of the analysis of X2-Softmax."""

import math
from typing import Any

import pytest
import torch

from helpers.head_references import arcface, x2softmax
from marginface.heads import create_margin, list_heads
from marginface.heads.analysis.curves import boundary_margin, head_curves

PHI = [50, 60, 70, 80, 90, 94, 100, 110, 120, 150, 180]
BOUNDARIES: list[tuple[str, dict[str, Any], list[float]]] = [
    ("x2softmax", {},
     [0.854, 0.736, 0.675, 0.645, 0.633, 0.632, 0.634, 0.645, 0.665, 0.767, 0.931]),
    ("arcface", {}, [0.5] * 11),
    ("cosface", {"margin": 0.35},
     [0.854, 0.715, 0.620, 0.552, 0.500, 0.483, 0.461, 0.431, 0.407, 0.364, 0.352]),
    ("cosface", {"margin": 0.40},
     [math.nan, 0.823, 0.712, 0.633, 0.574, 0.554, 0.528, 0.493, 0.466, 0.417, 0.403]),
]  # fmt: skip


def radians(degrees: list[float]) -> torch.Tensor:
    return torch.tensor(degrees, dtype=torch.float64).deg2rad()


@pytest.mark.parametrize(("name", "parameters", "expected"), BOUNDARIES)
def test_boundary_margins(name: str, parameters: dict[str, Any], expected: list[float]) -> None:
    margin, _ = create_margin(name, num_classes=3, **parameters)
    phi = radians([float(degrees) for degrees in PHI])
    margins = boundary_margin(margin, phi)
    torch.testing.assert_close(
        margins, torch.tensor(expected).double(), rtol=0, atol=6e-4, equal_nan=True
    )


def test_no_boundary_where_no_angle_satisfies_the_margin() -> None:
    margin, _ = create_margin("x2softmax", num_classes=3)
    margins = boundary_margin(margin, radians([10, 49.4, 49.5]))
    assert margins.isnan().tolist() == [True, True, False]


def test_curves_of_x2softmax() -> None:
    margin, _ = create_margin("x2softmax", num_classes=3)
    degrees = [0.0, 28.86, 60.0, 70.0, 77.0, 78.0]
    curves = head_curves(margin, radians(degrees), radians([90]))
    expected = [x2softmax(math.cos(math.radians(d))) for d in degrees]
    assert curves.target.tolist() == pytest.approx(expected, abs=1e-12)
    # U-shaped, undefined from 77.58 degrees on
    assert curves.implied_margin[:4].tolist() == pytest.approx(
        [0.8632, 0.6318, 0.8673, 1.115], abs=5e-4
    )
    assert curves.implied_margin.isnan().tolist() == [False] * 5 + [True]
    assert curves.slope[[0, 2]].tolist() == pytest.approx([1.8, 2.177], abs=1e-3)


def test_curves_of_arcface() -> None:
    margin, _ = create_margin("arcface", num_classes=3)
    curves = head_curves(margin, radians([10, 90]), radians([90]))
    expected = [arcface(math.cos(math.radians(d))) for d in (10, 90)]
    assert curves.target.tolist() == pytest.approx(expected)
    assert curves.implied_margin.tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("name", list_heads())
def test_every_head_has_curves(name: str) -> None:
    margin, _ = create_margin(name, num_classes=3)
    angles = radians([float(degrees) for degrees in range(0, 181, 5)])
    curves = head_curves(margin, angles, angles)
    assert curves.target.isfinite().all()
    assert curves.slope.isfinite().all()
    assert curves.boundary_margin[18:].isfinite().any()
