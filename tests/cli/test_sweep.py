"""A sweep is one complete run per job and one table."""

import csv
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.runs import has_rows, losses, started, wait_until

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_three_heads_and_one_table(tiny_run: list[str], tmp_path: Path, command: Command) -> None:
    sweep = ["head=x2softmax,arcface,cosface", f"hydra.sweep.dir={tmp_path}"]
    done = command("train.py", "-m", *tiny_run, "trainer.max_steps=3", *sweep)
    assert done.returncode == 0, done.stderr
    for number, head in enumerate(["x2softmax", "arcface", "cosface"]):
        run = tmp_path / str(number)
        assert len(losses(run)) == 3
        assert f"name: {head}" in (run / "config.yaml").read_text()
        assert (run / "checkpoints" / "last.ckpt").is_file()
    table = read(tmp_path / "comparison.csv")
    assert [row["head.name"] for row in table] == ["x2softmax", "arcface", "cosface"]
    for number, row in enumerate(table):
        result = json.loads((tmp_path / str(number) / "result.json").read_text())
        assert float(row["val/heldout/accuracy"]) == result["val/heldout/accuracy"]
    assert list(table[0])[:3] == ["run", "head.name", "val/heldout/accuracy"], "only what differs"
    assert "comparison" in done.stdout
    assert not any(p.name.startswith("3") for p in tmp_path.iterdir())
    again = command("-c", "from marginface.cli.main import app; app()", "compare", str(tmp_path))
    assert again.returncode == 0
    assert "arcface" in again.stdout


@pytest.mark.long
def test_jobs_with_different_numbers_of_processes(
    tiny_run: list[str], tmp_path: Path, command: Command
) -> None:
    """What goes wrong silently when jobs share a process; a failed job stops no other."""
    sweep = ["trainer=ddp_gloo", "trainer.devices=1,4,2"]
    options = ["trainer.max_steps=2", f"hydra.sweep.dir={tmp_path}"]
    done = command("train.py", "-m", *tiny_run, *sweep, *options)
    assert done.returncode == 1
    assert "jobs [1] failed" in done.stderr
    assert "cannot be split over 4 processes" in done.stderr
    infos = [json.loads((tmp_path / n / "runinfo.json").read_text()) for n in "02"]
    assert [info["world_size"] for info in infos] == [1, 2]
    assert [len(losses(tmp_path / n)) for n in "02"] == [2, 2]


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["local_cluster", "joblib"])
def test_jobs_side_by_side(
    tiny_run: list[str], tmp_path: Path, command: Command, launcher: str
) -> None:
    pytest.importorskip(
        f"hydra_plugins.hydra_{'joblib' if launcher == 'joblib' else 'submitit'}_launcher"
    )
    sweep = [f"hydra/launcher={launcher}", "head=x2softmax,arcface", f"hydra.sweep.dir={tmp_path}"]
    done = command("train.py", "-m", *tiny_run, "trainer.max_steps=2", *sweep)
    assert done.returncode == 0, done.stderr
    assert [len(losses(tmp_path / n)) for n in "01"] == [2, 2]
    assert "name: arcface" in (tmp_path / "1" / "config.yaml").read_text()


@pytest.mark.long
def test_a_signal_at_the_sweep_reaches_the_job(tiny_run: list[str], tmp_path: Path) -> None:
    run = tmp_path / "0"
    sweep = ["-m", "head=x2softmax,arcface", f"hydra.sweep.dir={tmp_path}"]
    with started([*sweep, *tiny_run, "trainer.max_epochs=10000"], tmp_path / "unused") as process:
        wait_until(has_rows(run, 3), process)
        process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "SIGUSR1: stopped after" in out
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert not (tmp_path / "1").exists()


def trials(sweep: Path) -> list[tuple[str, float | None]]:
    optuna = pytest.importorskip("optuna")
    study = optuna.load_study(study_name="marginface", storage=f"sqlite:///{sweep}/study.db")
    return [(trial.state.name, trial.value) for trial in study.trials]


@pytest.mark.long
def test_a_search_goes_on_after_it_was_killed(
    tiny_run: list[str], tmp_path: Path, command: Command
) -> None:
    search = ["-m", *tiny_run, "sweep=optuna", "hydra.sweeper.n_trials=6"]
    search += ["trainer.max_steps=4", "trainer.val_check_interval=2"]
    tmp_path = tmp_path / "Müller's"  # paths have characters that mean something to Hydra
    search += [f"hydra.sweep.dir={tmp_path}"]
    with started(search, tmp_path / "unused") as process:
        wait_until(has_rows(tmp_path / "3", 1), process)
    assert [state for state, _ in trials(tmp_path)] == ["COMPLETE"] * 3 + ["RUNNING"]
    done = command("train.py", *search)
    assert done.returncode == 0, done.stderr
    found = trials(tmp_path)
    assert len(found) == 6
    assert {state for state, _ in found} <= {"COMPLETE", "PRUNED"}
    for number, (state, value) in enumerate(found):
        result = json.loads((tmp_path / str(number) / "result.json").read_text())
        if state == "COMPLETE":
            assert value == result["val/mean/accuracy"]
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["value"] == max(v for s, v in found if s == "COMPLETE" and v is not None)
    assert f"best trial {best['trial']}" in done.stdout
    page = (tmp_path / "report.html").read_text()
    assert "6 runs" in page
    values = [value for state, value in found if state == "COMPLETE"]
    # Of equal trials nothing can be said.
    assert ("Importance of the settings" in page) == (len(values) >= 4 and len(set(values)) > 1)


@pytest.mark.long
def test_a_trial_that_fails_is_one_of_the_search(
    tiny_run: list[str], tmp_path: Path, command: Command
) -> None:
    search = ["-m", *tiny_run, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2"]
    search += ["trainer.max_steps=2", f"hydra.sweep.dir={tmp_path}", "head.scale=choice(16,32)"]
    done = command("train.py", *search, "+data.nothing=1")
    assert done.returncode == 2, "a mistake is found before the first trial"
    done = command("train.py", *search, "seed=1,2,3")
    assert done.returncode == 2
    assert "a search would choose the luckiest seed" in done.stderr
    assert "Traceback" not in done.stderr
    done = command("train.py", *search, "data.val_identities=0", "data.pairs=[]")
    assert done.returncode == 2
    assert "no trial of 2 gave a result" in done.stderr
    assert "failed or was not verified" in done.stdout
    assert [state for state, _ in trials(tmp_path)] == ["FAIL", "FAIL"]
