"""Every head learns: twenty steps of debug=fast on synthetic faces."""

from pathlib import Path

import pytest

from helpers.runs import compose, losses
from marginface.heads import list_heads
from marginface.training.run import train


@pytest.mark.slow
@pytest.mark.parametrize("name", list_heads())
def test_twenty_steps(name: str, tiny_run: list[str], tmp_path: Path) -> None:
    cache = next(item for item in tiny_run if item.startswith("paths.cache_dir"))
    overrides = [cache, "trainer=cpu", "callbacks.progress=null", "backbone.image_size=32"]
    overrides += ["data.dataset.identities=60", "data.val_identities=20"]
    if name in ("magface", "mv_softmax"):
        # With their default, half of the images of an untrained network have no margin, and the
        # loss rises while they gain one.
        overrides.append("head.easy_margin=none")
    train(compose("debug=fast", f"head={name}", *overrides, run_dir=tmp_path))
    run = list(losses(tmp_path).values())
    assert len(run) == 20
    assert sum(run[-5:]) / 5 < sum(run[:5]) / 5
