"""What a page names as not the defaults."""

from pathlib import Path

from helpers.runs import compose
from marginface.config.defaults import changed_settings


def test_only_what_was_changed(tmp_path: Path) -> None:
    assert changed_settings(compose(run_dir=tmp_path)) == {}
    found = changed_settings(
        compose("optimizer.lr=0.3", "seed=7", "callbacks.best=null", run_dir=tmp_path)
    )
    assert found == {
        "optimizer.lr": [0.3, 0.1], "seed": [7, 2048], "callbacks.best": [None, "..."],
    }  # fmt: skip


def test_another_head_has_its_own_parameters(tmp_path: Path) -> None:
    found = changed_settings(compose("head=arcface", run_dir=tmp_path))
    assert found["head.name"] == ["arcface", "x2softmax"]
    assert found["head.margin"] == [0.5, None]
    assert not any(key in found for key in ("head.k", "head.a"))
