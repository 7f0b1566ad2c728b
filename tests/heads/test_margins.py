"""Margins: curves with other parameters than the defaults against formulas, slopes, ranges."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from helpers.head_references import PI, arcface, combined, psi
from helpers.small_heads import cosines
from marginface.heads import Margin, create_head, create_margin
from marginface.utils.errors import InputError

Curve = Callable[[float], float]
COSINES = [math.cos(0.02 + 0.0517 * n) for n in range(60)]


def magface(c: float, norm: float, policy: str) -> float:
    a = min(max(norm, 5.0), 60.0)
    return arcface(c, 0.2 + (0.9 - 0.2) * (a - 5) / (60 - 5), policy)


def adaface(c: float, z: float, m: float) -> float:
    return math.cos(min(max(math.acos(c) - m * z, 1e-3), PI - 1e-3)) - (m + m * z)


MAG = {"l_margin": 0.2, "u_margin": 0.9, "l_a": 5.0, "u_a": 60.0}
TARGETS: list[tuple[str, dict[str, Any], dict[str, Any], Curve]] = [
    ("x2softmax", {"a": -0.7, "h": -0.2, "k": 0.8}, {},
     lambda c: -0.7 * (math.acos(c) + 0.2) ** 2 + 0.8),
    ("combined", {"m1": 1.3, "m2": 0.1, "m3": 0.05}, {}, lambda c: combined(c, 1.3, 0.1, 0.05)),
    ("sphereface", {"m": 3}, {}, lambda c: psi(c, 3)),
    ("sphereface", {"m": 2}, {"annealing": 7.0}, lambda c: (psi(c, 2) + 7 * c) / 8),
    ("sphereface_r", {"m": 2.4}, {}, lambda c: psi(c, 2.4)),
    ("sphereface2", {"t": 2.0, "margin": 0.2}, {}, lambda c: 2 * ((c + 1) / 2) ** 2 - 1 - 0.2),
    ("mv_softmax", {"easy_margin": "none", "margin": 0.2}, {}, lambda c: c - 0.2),
    ("mv_softmax", {"variant": "arc", "easy_margin": "none"}, {}, lambda c: arcface(c, 0.35)),
    ("mv_softmax", {"variant": "arc"}, {}, lambda c: arcface(c, 0.35, "easy")),
    ("mv_softmax", {"variant": "arc", "easy_margin": "monotone"}, {},
     lambda c: arcface(c, 0.35, "monotone")),
    ("curricularface", {"margin": 0.3, "easy_margin": "none"}, {}, lambda c: arcface(c, 0.3)),
    ("subcenter_arcface", {"margin": 0.7, "easy_margin": "monotone"}, {},
     lambda c: arcface(c, 0.7, "monotone")),
    *[("magface", {**MAG, "easy_margin": policy}, {"norm": norm},
       lambda c, norm=norm, policy=policy: magface(c, norm, policy))
      for policy in ("none", "monotone", "easy") for norm in (1.0, 33.0, 500.0)],
    ("adaface", {"margin": 0.3, "h": 0.5}, {"norm": 60.0},
     lambda c: adaface(c, 0.5 * 40 / (100 + 1e-3), 0.3)),
    ("elasticface_arc", {"margin": 0.2}, {"margin": 0.6}, lambda c: arcface(c, 0.6)),
    ("dynarcface", {"k1": 1.2, "k2": 0.5, "k3": 0.3}, {"nearest": 1.4},
     lambda c: arcface(c, 0.2 * 0.5 + 0.3 + 0.03 * 0.3 / (1 + 4.0**1.1))),
    ("li_arcface", {"margin": 0.3}, {}, lambda c: (PI - 2 * (math.acos(c) + 0.3)) / PI),
    ("qamface", {"margin": 0.2}, {}, lambda c: (2 * PI - math.acos(c) - 0.2) ** 2),
    ("circle", {"margin": 0.1}, {}, lambda c: max(1.1 - c, 0) * (c - 0.9)),
    ("expface", {"exponent": 0.5}, {}, lambda c: math.cos(PI * math.sqrt(math.acos(c) / PI))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameters", "inputs", "curve"), TARGETS)
def test_targets(
    name: str, parameters: dict[str, Any], inputs: dict[str, Any], curve: Curve
) -> None:
    head = create_head(name, embedding_size=4, num_classes=3, **parameters).double()
    target = head.target_logit(torch.tensor(COSINES, dtype=torch.float64), **inputs)
    assert target.tolist() == pytest.approx([curve(c) for c in COSINES], rel=1e-10, abs=1e-10)


def hard(rule: Curve, limit: float) -> Curve:
    return lambda c: rule(c) if c > limit else c


NEGATIVES: list[tuple[str, dict[str, Any], float, Curve]] = [
    ("mv_softmax", {"t": 0.3}, 0.4, hard(lambda c: 1.3 * c + 0.3, 0.4 - 0.35)),
    ("mv_softmax", {"weighting": "fixed"}, 0.4, hard(lambda c: c + 0.2, 0.4 - 0.35)),
    ("mv_softmax", {"variant": "arc"}, 0.4, hard(lambda c: 1.2 * c + 0.2, arcface(0.4, 0.35))),
    ("curricularface", {"margin": 0.3}, 0.2, hard(lambda c: c * (0.25 + c), arcface(0.2, 0.3))),
    ("sphereface2", {"t": 2.0, "margin": 0.2}, 0.0, lambda c: 2 * ((c + 1) / 2) ** 2 - 1 + 0.2),
    ("circle", {"margin": 0.1}, 0.0, lambda c: max(c + 0.1, 0) * (c - 0.1)),
]


@pytest.mark.parametrize(("name", "parameters", "target", "curve"), NEGATIVES)
def test_negatives(name: str, parameters: dict[str, Any], target: float, curve: Curve) -> None:
    head = create_head(name, embedding_size=4, num_classes=3, **parameters).double()
    if name == "curricularface":
        head.margin.t.fill_(0.25)
    cosine = torch.tensor([COSINES], dtype=torch.float64)
    changed = head.margin.negative_curve(cosine, torch.tensor([[target]], dtype=torch.float64))
    assert changed[0].tolist() == pytest.approx([curve(c) for c in COSINES], rel=1e-10, abs=1e-10)


def test_annealing_of_sphereface() -> None:
    torch.manual_seed(0)
    head = create_head("sphereface", embedding_size=4, num_classes=3).double()
    head.margin.step.fill_(136)
    embeddings, labels = torch.randn(1, 4).double(), torch.tensor([1])
    cosine = cosines(head, embeddings)[0, 1].item()
    annealing = max(5, 1000 / (1 + 0.12 * 137))
    expected = embeddings.norm().item() * (psi(cosine, 4) + annealing * cosine) / (1 + annealing)
    assert head.logits(embeddings, labels)[0, 1].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("magface", {"l_a": 50.0, "u_a": 20.0}, "l_a must be below u_a, got 50.0 and 20.0"),
        ("sphereface", {"m": 2.5}, "m=2.5: input should be a valid integer"),
        ("sphereface_r", {"m": 0.5}, "m=0.5: input should be greater than or equal to 1"),
        ("sphereface2", {"positive_weight": 1.0}, "input should be less than 1"),
        ("expface", {"exponent": 1.5}, "exponent=1.5: input should be less than or equal to 1"),
        (
            "curricularface",
            {"t_alpha": 2.0},
            "t_alpha=2.0: input should be less than or equal to 1",
        ),
        ("subcenter_arcface", {"sub_centers": 0}, "sub_centers=0: input should be greater"),
        ("mv_softmax", {"variant": "cos"}, "variant='cos': input should be 'am' or 'arc'"),
    ],
)
def test_out_of_range(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_head(name, embedding_size=4, num_classes=3, **parameters)


def test_magface_warns_where_it_cannot_work() -> None:
    with pytest.warns(UserWarning, match="magface needs margin_gradient=exact"):
        create_head("magface", embedding_size=4, num_classes=3, margin_gradient="straight_through")


@pytest.mark.parametrize("policy", ["none", "monotone", "easy"])
def test_combined_with_m2_alone_is_arcface(policy: str) -> None:
    sizes = {"embedding_size": 4, "num_classes": 3, "easy_margin": policy}
    arcface = create_head("arcface", margin=0.5, **sizes)
    same = create_head("combined", m1=1.0, m2=0.5, m3=0.0, **sizes)
    cosine = torch.linspace(-1, 1, 101, dtype=torch.float64)
    assert torch.equal(arcface.target_logit(cosine), same.target_logit(cosine))


def test_combined_uses_all_three_margins() -> None:
    head = create_head("combined", embedding_size=4, num_classes=3, m1=1.2, m2=0.3, m3=0.2)
    expected = [combined(c, 1.2, 0.3, 0.2) for c in COSINES]
    target = head.target_logit(torch.tensor(COSINES, dtype=torch.float64))
    torch.testing.assert_close(target, torch.tensor(expected, dtype=torch.float64))


def test_wrong_policies() -> None:
    with pytest.raises(
        InputError, match="easy_margin='hard': input should be 'none', 'monotone' or"
    ):
        create_head("arcface", embedding_size=4, num_classes=3, easy_margin="hard")
    with pytest.raises(InputError, match="defined for m1=1 only, got m1=1.5"):
        create_head("combined", embedding_size=4, num_classes=3, m1=1.5, easy_margin="easy")


def x2softmax(**parameters: object) -> Margin:
    return create_margin("x2softmax", num_classes=3, **parameters)[0]


def test_x2softmax_values_of_the_reference_table() -> None:
    cosine = torch.tensor([1, 0.95, 0.8, 0.5, 0.2, 0, -0.2, -0.5, -0.9, -1], dtype=torch.float64)
    expected = torch.tensor(
        [0.6500, 0.5592, 0.2773, -0.3370, -1.0378, -1.5707, -2.1765, -3.2978, -5.8652, -8.2326],
        dtype=torch.float64,
    )
    torch.testing.assert_close(x2softmax().target_logit(cosine), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_x2softmax_slope_at_one_is_the_limit(dtype: torch.dtype) -> None:
    slope = x2softmax().slope(torch.tensor([1.0], dtype=dtype))
    assert float(slope) == pytest.approx(1.8, rel=1e-7)


def test_x2softmax_slope_joins_its_series_smoothly() -> None:
    u = torch.logspace(-8, -2, 200, dtype=torch.float64)
    slope = x2softmax().slope(1 - u)
    theta = 2 * (u / 2).sqrt().asin()
    torch.testing.assert_close(slope, 1.8 * theta / theta.sin(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("h", [0.0, -0.1])
def test_x2softmax_falls_strictly_with_the_angle(h: float) -> None:
    cosine = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    assert (x2softmax(h=h).target_logit(cosine).diff() > 0).all()


def test_x2softmax_out_of_range() -> None:
    with pytest.raises(InputError, match="a must be negative.*got a=0.1"):
        x2softmax(a=0.1)
    with pytest.raises(InputError, match="<= 1, got k=1.5"):
        x2softmax(k=1.5)
    with pytest.warns(UserWarning, match="h=0.2 > 0"):
        x2softmax(h=0.2)
