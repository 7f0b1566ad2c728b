"""Learning rates over a run."""

import math

import pytest

from marginface.training.schedulers import constant, cosine, multistep, poly, trapezoidal
from marginface.utils.errors import InputError

RUN = {"total_steps": 100, "steps_per_epoch": 10}


def test_multistep_changes_at_its_epochs() -> None:
    factor = multistep(**RUN, milestones=[3, 6.5], gamma=0.1)
    assert [factor(s) for s in (0, 29, 30, 64, 65, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_poly_and_cosine_end_at_zero() -> None:
    for schedule in (poly(**RUN), cosine(**RUN)):
        values = [schedule(step) for step in range(101)]
        assert values[0] == 1
        assert values == sorted(values, reverse=True)
        assert values[100] == pytest.approx(0, abs=1e-12)
    assert poly(**RUN)(25) == 0.75
    assert poly(**RUN, power=2)(25) == 0.5625
    assert cosine(**RUN)(25) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert cosine(**RUN, final_factor=0.1)(100) == pytest.approx(0.1)


def test_trapezoidal_stays_then_falls_to_zero() -> None:
    factor = trapezoidal(**RUN, decay=0.4)
    assert [factor(s) for s in (0, 60, 70, 80, 100)] == pytest.approx([1, 1, 0.75, 0.5, 0])
    # The shares are of what follows the warm-up: of 80 steps, the last 20 fall.
    factor = trapezoidal(**RUN, decay=0.25, warmup_epochs=2)
    assert [factor(s) for s in (9, 20, 80, 90, 100)] == pytest.approx([0.5, 1, 1, 0.5, 0])
    assert [trapezoidal(**RUN, decay=1)(s) for s in range(100)] == pytest.approx(
        [poly(**RUN)(s) for s in range(100)]
    )


@pytest.mark.parametrize("schedule", [constant, poly, cosine, trapezoidal])
def test_warm_up_rises_to_the_full_rate(schedule) -> None:  # type: ignore[no-untyped-def]
    factor = schedule(**RUN, warmup_epochs=2)
    assert [factor(s) for s in (0, 9, 19)] == pytest.approx([0.05, 0.5, 1.0])
    assert max(factor(s) for s in range(100)) == pytest.approx(1.0)


def test_a_run_shorter_than_its_warm_up() -> None:
    factor = cosine(total_steps=3, steps_per_epoch=10, warmup_epochs=1)
    assert [factor(s) for s in range(3)] == pytest.approx([0.1, 0.2, 0.3])


def test_faults() -> None:
    with pytest.raises(InputError, match="must rise"):
        multistep(**RUN, milestones=[5, 3])
    with pytest.raises(InputError, match="must not be negative"):
        constant(**RUN, warmup_epochs=-1)
    for decay in (0, 1.5):
        with pytest.raises(InputError, match=r"decay must be within \(0, 1\], got"):
            trapezoidal(**RUN, decay=decay)
