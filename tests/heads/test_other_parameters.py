"""Curves with other parameters than the defaults, against formulas on Python floats."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from heads.references import PI, arcface, combined, psi
from marginface.heads import create_head
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


@pytest.mark.parametrize(("name", "parameters", "facts", "curve"), TARGETS)
def test_targets(
    name: str, parameters: dict[str, Any], facts: dict[str, Any], curve: Curve
) -> None:
    head = create_head(name, embedding_size=4, num_classes=3, **parameters).double()
    target = head.target_logit(torch.tensor(COSINES, dtype=torch.float64), **facts)
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
        head.t.fill_(0.25)
    cosine = torch.tensor([COSINES], dtype=torch.float64)
    changed = head.negative_curve(cosine, torch.tensor([[target]], dtype=torch.float64))
    assert changed[0].tolist() == pytest.approx([curve(c) for c in COSINES], rel=1e-10, abs=1e-10)


def test_annealing_of_sphereface() -> None:
    torch.manual_seed(0)
    head = create_head("sphereface", embedding_size=4, num_classes=3).double()
    head.step.fill_(136)
    embeddings, labels = torch.randn(1, 4).double(), torch.tensor([1])
    cosine = head.cosine(embeddings)[0, 1].item()
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
