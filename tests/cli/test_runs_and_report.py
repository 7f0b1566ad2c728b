"""`marginface runs`, `report` and `compare --page`."""

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from helpers.written_runs import write_run, write_sweep
from marginface.cli.main import app
from marginface.utils.process_identity import is_alive, this_process

runner = CliRunner()


def lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if "│" in line]


def test_runs_are_listed_with_state_step_accuracy_and_age(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "done")
    going = write_run(tmp_path / "runs" / "going", state="running")
    status = json.loads((going / "status.json").read_text())
    (going / "status.json").write_text(json.dumps(status | {"process": this_process()}))
    killed = write_run(tmp_path / "runs" / "killed", state="running")
    gone = this_process() | {"pid": 2**22 - 1}
    (killed / "status.json").write_text(json.dumps(status | {"process": gone}))
    broken = write_run(tmp_path / "runs" / "broken")
    (broken / "metrics.csv").write_text("step,val/mean/accuracy\n0,a\n")
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "config.yaml").write_text("a: 1\n")
    done = runner.invoke(app, ["runs", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = {line.split("│")[1].strip(): line for line in lines(done.output)}
    assert "done" in found["runs/done"]
    assert "591 of 600" in found["runs/done"]
    assert "90.00" in found["runs/done"]
    assert "s ago" in found["runs/done"]
    assert "running" in found["runs/going"]
    assert "stopped" in found["runs/killed"]
    assert "unreadable" in done.output
    assert not any("other" in name for name in found)


def test_nothing_to_list(tmp_path: Path) -> None:
    assert "no run folders below" in runner.invoke(app, ["runs", str(tmp_path)]).output
    done = runner.invoke(app, ["runs", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "does not exist; name the folder that holds the runs" in done.output


def test_a_run_on_another_machine_runs_while_it_writes(tmp_path: Path) -> None:
    elsewhere = this_process() | {"host": "another"}
    assert is_alive(elsewhere) is None
    run = write_run(tmp_path / "run", state="running")
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"process": elsewhere}))
    assert "running" in runner.invoke(app, ["runs", str(tmp_path)]).output
    for file in run.iterdir():
        os.utime(file, (time.time() - 3600, time.time() - 3600))
    listed = runner.invoke(app, ["runs", str(tmp_path)]).output
    assert "stopped" in listed
    assert "1 h ago" in listed


def test_report_of_a_run_and_of_a_sweep(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    done = runner.invoke(app, ["report", str(run)])
    assert done.exit_code == 0, done.output
    assert (run / "report.html").is_file()
    sweep = write_sweep(tmp_path / "sweep", {"a": {1: 0.9, 2: 0.91}, "b": {1: 0.8, 2: 0.82}})
    done = runner.invoke(app, ["report", str(sweep)])
    assert done.exit_code == 0, done.output
    assert "A rank is 1 plus" in (sweep / "report.html").read_text()
    done = runner.invoke(app, ["report", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "is not a run folder: it does not exist" in done.output


def test_compare_with_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_sweep(tmp_path / "sweep", {"a": {1: 0.9, 2: 0.91}, "b": {1: 0.8, 2: 0.82}})
    runs = [str(tmp_path / "sweep" / n) for n in "0123"]
    done = runner.invoke(app, ["compare", *runs])
    assert done.exit_code == 0, done.output
    assert "groups (mean verification accuracy" in done.output
    assert not (tmp_path / "logs").exists()
    done = runner.invoke(app, ["compare", *runs, "--page"])
    [page] = (tmp_path / "logs" / "comparisons").glob("*.html")
    assert f"page {page.relative_to(tmp_path)}" in done.output
    done = runner.invoke(app, ["compare", *runs, "--html", str(page)])
    assert done.exit_code == 2
    assert "exists; choose another name with --html, nothing is overwritten" in done.output
