"""The page and the state of a run while it trains, and how it ends."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.runs import compose, has_rows, rows, started, wait_until
from marginface.pages import run_page
from marginface.pages.run_page import write_run_page
from marginface.runs.folder import RunFolder
from marginface.runs.status import read_status
from marginface.training.module import FaceRecognizer
from marginface.training.run import train
from marginface.utils.errors import NonFiniteLossError


def test_a_page_after_every_validation(
    tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noting(folder: RunFolder) -> Path:
        page = write_run_page(folder)
        seen.append(page.read_text())
        return page

    monkeypatch.setattr("marginface.training.callbacks.run_page.write_run_page", noting)
    train(
        compose(*tiny_run, "trainer.max_steps=6", "trainer.val_check_interval=3", run_dir=tmp_path)
    )
    assert len(seen) == 3
    assert "Running at step 3 of 6" in seen[0]
    assert "Running at step 6 of 6" in seen[1]
    assert "Done at step 6 of 6" in seen[2]
    info = json.loads((tmp_path / "runinfo.json").read_text())
    assert info["dataset"]["identities"] == 11
    assert info["dataset"]["images_per_identity"]["mean"] == 6
    assert info["machine"]["processors"] >= 1
    assert info["changed_settings"]["trainer.max_steps"] == [6, -1]
    curves = json.loads((tmp_path / "curves.json").read_text())
    assert curves["head"]["target"][90] == pytest.approx(0.65 - 0.9 * (torch.pi / 2) ** 2)
    assert curves["validation"]["after_steps"] == 6


def test_a_page_that_fails_ends_no_run(
    tiny_run: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(folder: RunFolder) -> Path:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("marginface.training.callbacks.run_page.write_run_page", failing)
    result = train(compose(*tiny_run, "trainer.max_steps=2", run_dir=tmp_path))
    assert "train/loss" in result
    assert "report.html was not written: a mistake of ours" in capsys.readouterr().err
    assert read_status(RunFolder(tmp_path)).state == "done"


def test_a_diverged_run_says_so(tiny_run: list[str], tmp_path: Path) -> None:
    config = compose(
        *tiny_run, "optimizer.lr=1e30", "trainer.gradient_clip_val=null", "trainer.max_steps=20",
        run_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(NonFiniteLossError):
        train(config)
    assert read_status(RunFolder(tmp_path)).state == "stopped"
    page = (tmp_path / "report.html").read_text()
    assert "Warning: The run stopped: the loss is" in page
    assert "Lower optimizer.lr" in page


@pytest.mark.parametrize("clip", ["5.0", "null", "0.1 +trainer.gradient_clip_algorithm=value"])
def test_the_gradient_norm_is_that_before_clipping(
    clip: str, tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = []
    clipping = FaceRecognizer.configure_gradient_clipping

    def noting(module: FaceRecognizer, *arguments: object, **more: object) -> None:
        grads = [p.grad for p in module.backbone.parameters() if p.grad is not None]
        norms.append(float(nn.utils.get_total_norm(grads)))
        assert norms[-1] == pytest.approx(
            float(torch.sqrt(sum((g.double() ** 2).sum() for g in grads))),
            rel=1e-5,  # type: ignore[arg-type]
        )
        clipping(module, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(FaceRecognizer, "configure_gradient_clipping", noting)
    overrides = f"trainer.gradient_clip_val={clip}".split()
    train(compose(*tiny_run, *overrides, "trainer.max_steps=3", run_dir=tmp_path))
    logged = [float(row["train/gradient_norm"]) for row in rows(tmp_path)]
    assert logged == pytest.approx(norms)
    assert max(logged) > 5


@pytest.mark.slow
def test_the_page_of_a_killed_run_shows_the_last_validation(
    tiny_run: list[str], tmp_path: Path
) -> None:
    options = [*tiny_run, "trainer.val_check_interval=2", "trainer.max_epochs=10000"]
    with started(options, tmp_path) as process:
        wait_until(has_rows(tmp_path, 6), process)
        assert read_status(RunFolder(tmp_path)).state == "running"
    assert read_status(RunFolder(tmp_path)).state == "stopped"
    page = (tmp_path / "report.html").read_text()
    assert "verification: accuracy" in page
    assert "Running at step" in page, "as it was then"
    again = run_page.write_run_page(tmp_path).read_text()
    assert "Stopped at step" in again
    assert "without saying why" in again
