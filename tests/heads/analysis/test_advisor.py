"""The advisor: each number against a derivation of its own, each warning once."""

import math
from typing import Any

import pytest

from helpers.head_references import TARGETS, x2softmax
from marginface.classifier.losses import ClassificationLoss
from marginface.heads import Margin, create_margin, list_heads
from marginface.heads.analysis.advisor import Advice, advise, least_scale, solved_angle


def make(name: str = "x2softmax", **parameters: Any) -> tuple[Margin, ClassificationLoss]:
    return create_margin(name, num_classes=93_431, **parameters)


SIZES = {"num_classes": 93_431, "embedding_size": 512}


def advice(name: str = "x2softmax", precision: str | None = None, **parameters: Any) -> Advice:
    sizes = {key: parameters.pop(key, size) for key, size in SIZES.items()}
    margin, loss = create_margin(name, num_classes=sizes["num_classes"], **parameters)
    return advise(margin, loss, **sizes, precision=precision)


def test_solved_angle_is_where_target_and_negatives_weigh_the_same() -> None:
    negatives = math.log(93_430) + 64**2 / (2 * 512)
    angle = solved_angle(*make(), **SIZES)
    assert angle is not None
    assert 64 * x2softmax(math.cos(math.radians(angle))) == pytest.approx(negatives, abs=0.3)
    arcface = solved_angle(*make("arcface"), **SIZES)
    assert arcface is not None
    assert arcface == pytest.approx(math.degrees(math.acos(negatives / 64) - 0.5), abs=0.25)


def test_solved_angle_of_binary_losses_is_at_the_threshold() -> None:
    margin, loss = create_margin("uniface", num_classes=1000)
    angle = solved_angle(margin, loss, num_classes=1000, embedding_size=512)
    expected = math.degrees(math.acos(math.log(10 * 1000) / 64 + 0.4))
    assert angle == pytest.approx(expected, abs=0.25)


def test_least_scale() -> None:
    # At that scale a perfect image has p = 0.9 among orthogonal centers.
    for name, best in [("x2softmax", 0.65), ("cosface", 0.6), ("arcface", math.cos(0.5))]:
        least = least_scale(make(name)[0], **SIZES)
        assert least is not None
        p = math.exp(least * best) / (math.exp(least * best) + 93_430)
        assert p == pytest.approx(0.9)


def test_no_warnings_for_the_official_run() -> None:
    official = advice()
    assert official.warnings == []
    assert official.lines() == [
        "expected first loss 116.0; p = 0.5 at 38.5 degrees; scale of at least 21.0 for p = 0.9"
    ]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scale": 10.0}, "scale 10 is small for 93431 classes.*use at least 21.0"),
        ({"scale": 10.0}, "the margin is unreachable: even at angle 0"),
        ({"num_classes": 10, "embedding_size": 64}, "scale 64 is large for 10 classes in 64 dim"),
        ({"k": -0.2}, "unreachable"),
        ({"h": 0.1}, "h > 0 makes the logit fall again"),
        ({"precision": "16-true"}, "precision=16-true stores class centers and state in 16 bits"),
    ],
)
@pytest.mark.filterwarnings("ignore:x2softmax. h=0.1")
def test_warnings(parameters: dict[str, Any], message: str) -> None:
    import re

    found = advice(**parameters)
    assert any(re.search(message, warning) for warning in found.warnings), found.warnings
    assert all(line.startswith("warning: ") for line in found.lines()[1:])


@pytest.mark.parametrize("name", list_heads())
def test_every_head_can_be_advised(name: str) -> None:
    found = advice(name, num_classes=1000)
    assert math.isfinite(found.expected_first_loss)


@pytest.mark.parametrize("name", TARGETS)
def test_no_warning_about_defaults(name: str) -> None:
    assert advice(name, num_classes=1000).warnings == []
