"""Trials of a study that are worse than those before end early."""

import json
from pathlib import Path

import pytest

from helpers.runs import compose, losses
from marginface.training.run import train

optuna = pytest.importorskip("optuna")


@pytest.mark.parametrize(("before", "steps"), [(0.0, 8), (1.01, 2)])
def test_against_the_median_of_the_trials_before(
    before: float, steps: int, tiny_run: list[str], tmp_path: Path
) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(study_name="s", storage=storage, direction="maximize")
    for _ in range(3):
        trial = study.ask()
        for step in (2, 4, 6, 8):
            trial.report(before, step)
        study.tell(trial, before)
    trial = study.ask()
    target = "marginface.training.callbacks.pruning.TrialPruning"
    settings = f"storage:'{storage}',study_name:s,trial_id:{trial._trial_id},startup_trials:3"
    train(
        compose(
            *tiny_run, "trainer.max_steps=8", "trainer.val_check_interval=2",
            f"++callbacks.pruning={{_target_:{target},{settings}}}", run_dir=tmp_path / "run",
        )
    )  # fmt: skip
    assert len(losses(tmp_path / "run")) == steps
    [found] = [t for t in study.trials if t.number == trial.number]
    assert list(found.intermediate_values) == list(range(2, steps + 1, 2))
    assert found.user_attrs == ({"pruned": True} if steps == 2 else {})
    assert "train/loss" in json.loads((tmp_path / "run" / "result.json").read_text())


def test_a_database_that_cannot_be_had_ends_no_run(
    tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = "marginface.training.callbacks.pruning.TrialPruning"
    settings = f"storage:'sqlite:///{tmp_path}/none/study.db',study_name:s,trial_id:1"
    train(
        compose(
            *tiny_run, "trainer.max_steps=2", "trainer.val_check_interval=1",
            f"++callbacks.pruning={{_target_:{target},{settings}}}", run_dir=tmp_path / "run",
        )
    )  # fmt: skip
    assert len(losses(tmp_path / "run")) == 2
    assert "was not told of this validation" in capsys.readouterr().err
