"""Target logits of every published curve at ten cosines, to the four digits they are known to."""

from typing import Any

import pytest
import torch

from marginface.heads import create_head

COSINES = [1, 0.95, 0.8, 0.5, 0.2, 0, -0.2, -0.5, -0.9, -1]
NONE = [0.8776, 0.6840, 0.4144, 0.0236, -0.2942, -0.4794, -0.6453, -0.8540, -0.9988, -0.8776]
TABLE: list[tuple[str, dict[str, Any], list[float]]] = [
    ("x2softmax", {},
     [0.6500, 0.5592, 0.2773, -0.3370, -1.0378, -1.5707, -2.1765, -3.2978, -5.8652, -8.2326]),
    ("arcface", {}, NONE),
    ("arcface", {"easy_margin": "monotone"}, [*NONE[:8], -1.1397, -1.2397]),
    ("arcface", {"easy_margin": "easy"}, [*NONE[:5], 0, -0.2, -0.5, -0.9, -1]),
    ("subcenter_arcface", {}, NONE),
    ("elasticface_arc", {}, NONE),
    ("curricularface", {}, [*NONE[:8], -1.1397, -1.2397]),
    ("cosface", {"margin": 0.35}, [c - 0.35 for c in COSINES]),
    ("cosface", {}, [c - 0.40 for c in COSINES]),
    ("combined", {},
     [0.7553, 0.6153, 0.3870, 0.0217, -0.2985, -0.4955, -0.6806, -0.9336, -1.1886, -1.1553]),
    ("sphereface_r", {},
     [1, 0.8578, 0.4590, -0.2079, -0.6869, -0.8910, -0.9917, -1.0865, -1.8620, -2.5878]),
    ("sphereface", {},
     [1, 0.2960, -0.8432, -1.5, -2.6928, -3, -3.3072, -4.5, -5.7688, -7]),
    ("li_arcface", {},
     [0.7135, 0.5114, 0.3039, 0.0469, -0.1583, -0.2865, -0.4147, -0.6198, -0.9993, -1.2865]),
    ("qamface", {},
     [33.445, 29.873, 26.416, 22.430, 19.481, 17.744, 16.088, 13.607, 9.564, 6.978]),
    # z = 1, 0, -1: norms far above, at and far below the mean
    ("adaface", {"norm": 100.0, "h": 100.0},
     [0.2000, 0.2000, 0.1705, -0.0022, -0.2342, -0.4106, -0.6027, -0.9233, -1.4592, -1.7211]),
    ("adaface", {"norm": 20.0},
     [0.60, 0.55, 0.40, 0.10, -0.20, -0.40, -0.60, -0.90, -1.30, -1.40]),
    ("adaface", {"norm": 0.0, "h": 100.0},
     [0.9211, 0.7534, 0.5032, 0.1233, -0.1973, -0.3894, -0.5658, -0.7978, -0.9987, -1.0000]),
    ("magface", {"norm": 20.0},
     [0.8847, 0.6949, 0.4280, 0.0386, -0.2799, 0, -0.2, -0.5, -0.9, -1]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameters", "expected"), TABLE)
def test_target_logits(name: str, parameters: dict[str, Any], expected: list[float]) -> None:
    facts = {key: value for key, value in parameters.items() if key == "norm"}
    own = {key: value for key, value in parameters.items() if key != "norm"}
    head = create_head(name, embedding_size=4, num_classes=3, **own)
    target = head.target_logit(torch.tensor(COSINES, dtype=torch.float64), **facts)
    # QAM's values are printed to three decimals.
    close = 6e-4 if name == "qamface" else 1e-4
    torch.testing.assert_close(target, torch.tensor(expected).double(), rtol=0, atol=close)


def test_negatives_of_li_arcface() -> None:
    head = create_head("li_arcface", embedding_size=4, num_classes=3)
    cosine = torch.tensor([1, 0.95, 0.8, 0.5, 0.2, 0], dtype=torch.float64)
    others = head.margin.negative_curve(cosine, torch.ones(()))
    expected = torch.tensor([1, 0.798, 0.590, 0.333, 0.128, 0], dtype=torch.float64)
    torch.testing.assert_close(others, expected, rtol=0, atol=1e-3)
