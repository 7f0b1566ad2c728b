"""Runs grouped over seeds, and the page about them."""

import json
import re
from pathlib import Path

import html5lib
import numpy as np
import pytest

from helpers.written_runs import write_run, write_sweep
from marginface.pages.groups import group_runs
from marginface.pages.sweep_page import finish_sweep, write_comparison_page
from marginface.runs.comparison import compare_runs, read_compared, run_folders

THREE = {
    "x2softmax": {1: 0.90, 2: 0.91, 3: 0.92},
    "arcface": {1: 0.80, 2: 0.811, 3: 0.819},
    "cosface": {1: 0.801, 2: 0.809, 3: 0.822},
}


def groups_of(folder: Path):  # type: ignore[no-untyped-def]
    return group_runs(read_compared(run_folders(folder)))


def test_groups_are_everything_but_the_seed(tmp_path: Path) -> None:
    found = groups_of(write_sweep(tmp_path, THREE))
    assert found.groups[0].name == "x2softmax"
    assert {group.name for group in found.groups} == set(THREE)
    assert [len(group.runs) for group in found.groups] == [3, 3, 3]
    assert found.groups[0].accuracy.value == pytest.approx(0.91)
    assert found.settings == ["head.name"]
    assert found.ranks == [1, 2, 2]
    assert "Of 3 differences, 2 remain after Holm" in found.verdict()
    assert "better than every other group" in found.verdict()


def test_one_seed_each(tmp_path: Path) -> None:
    found = groups_of(write_sweep(tmp_path, {"a": {1: 0.9}, "b": {1: 0.1}}))
    assert found.ranks == [1, 1]
    assert "nothing can be said about the groups beyond the pairs' own bootstrap" in found.verdict()


def test_parameters_tell_runs_of_one_head_apart(tmp_path: Path) -> None:
    for number, (head, margin) in enumerate(
        [("arcface", 0.3), ("arcface", 0.5), ("cosface", 0.3), ("cosface", 0.5)]
    ):
        config = {"head": {"name": head, "margin": margin}}
        write_run(tmp_path / str(number), config=config)
    found = groups_of(tmp_path)
    assert found.settings == ["head.name", "head.margin"]
    assert len(found.groups) == 4
    assert "arcface head.margin=0.3" in [group.name for group in found.groups]
    assert len(found.effects) == 4, "a factorial sweep"


def test_runs_without_a_result_are_counted(tmp_path: Path) -> None:
    write_sweep(tmp_path, THREE)
    (tmp_path / "4" / "result.json").write_text("{}")
    found = groups_of(tmp_path)
    assert len(found.missing) == 1
    assert sorted(len(group.runs) for group in found.groups) == [2, 3, 3]


def test_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(tmp_path / "sweep", THREE)
    for job in run_folders(tmp_path / "sweep"):
        (job / "report.html").write_text("a page")
    (tmp_path / "sweep" / "importance.json").write_text(json.dumps({"head.k": 0.7, "lr": 0.3}))
    finish_sweep(tmp_path / "sweep")
    printed = capsys.readouterr().out
    assert "x2softmax" in printed
    assert "Of 3 differences, 2 remain" in printed
    moved = (tmp_path / "sweep").rename(tmp_path / "elsewhere")
    text = (moved / "report.html").read_text()
    html5lib.HTMLParser(strict=True).parse(text)
    links = re.findall(r'href="([^"]+)"', text)
    assert len(links) == 9
    assert all((moved / link).is_file() for link in links), "also after the folder was moved"
    for words in ("9 runs", "A rank is 1 plus", "Learning curves", "highest seed", "paired",
                  "Importance of the settings"):  # fmt: skip
        assert words in text


def test_curves_are_means_over_the_steps_that_all_seeds_have(tmp_path: Path) -> None:
    steps = np.arange(3.0)
    for seed, loss in ((1, [3.0, 2.0, 1.0]), (2, [5.0, 4.0, np.nan])):
        log = {"step": steps, "train/loss": np.array(loss)}
        write_run(tmp_path / str(seed), log, config={"seed": seed, "data": {"seed": seed}})
    text = write_comparison_page(run_folders(tmp_path), tmp_path / "r.html", "t").read_text()
    chart = text[text.index("training loss") :]
    points = re.search(r'class="line s0" points="([^"]+)"', chart)
    assert points is not None
    assert len(points[1].split()) == 2


def test_nothing_to_compare(tmp_path: Path) -> None:
    write_run(tmp_path / "0", result={"train/loss": 1.0})
    text = write_comparison_page(run_folders(tmp_path), tmp_path / "r.html", "t").read_text()
    assert "No run has a verification result yet" in text


def test_a_seed_of_the_data_is_not_that_of_the_run(tmp_path: Path) -> None:
    """The faces are the same whatever the seed of the run, which may be equal by chance."""
    for seed in (0, 1, 2):
        config = {"seed": seed, "data": {"seed": seed, "dataset": {"seed": 0}}}
        write_run(tmp_path / str(seed), config=config)
    found = groups_of(tmp_path)
    assert [len(group.runs) for group in found.groups] == [3]
    assert found.settings == []


def test_seeds_of_own_parts_follow_the_run(tmp_path: Path) -> None:
    for seed in (0, 1):
        config = {"seed": seed, "data": {"seed": seed}, "augmentation": {"seed": seed}}
        write_run(tmp_path / str(seed), config=config)
    assert [len(group.runs) for group in groups_of(tmp_path).groups] == [2]


def test_how_a_run_is_carried_out_makes_no_group(tmp_path: Path) -> None:
    config = {"callbacks": {"page": {"run_dir": "x"}}, "resume": "auto"}
    write_run(tmp_path / "0", config=config)
    other = {"callbacks": {"best": {"monitor": "y"}}, "data": {"num_workers": 9, "seed": 2}}
    write_run(tmp_path / "1", config=other | {"seed": 2})
    assert [len(group.runs) for group in groups_of(tmp_path).groups] == [2]


def test_a_seed_counts_once(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"a": {1: 0.9}, "b": {1: 0.8}})
    write_run(tmp_path / "2", config={"head": {"name": "a"}, "name": "x"})
    found = groups_of(tmp_path)
    assert [run.folder.name for run in found.repeated] == ["2"]
    assert [len(group.runs) for group in found.groups] == [1, 1]
    text = write_comparison_page(run_folders(tmp_path), tmp_path / "r.html", "t").read_text()
    assert "1 repeat a seed, not counted" in text


def test_the_verdict_follows_the_differences(tmp_path: Path) -> None:
    """Means over other seeds can be in another order than the seeds that groups share."""
    found = groups_of(
        write_sweep(tmp_path, {"a": {1: 0.90, 2: 0.9001, 3: 0.99}, "b": {1: 0.91, 2: 0.9102}})
    )
    assert found.groups[0].name == "a"
    assert found.differences[0].differs
    assert "better than every other" not in found.verdict()
    assert "a is highest, and not told apart from b" in found.verdict()


def test_who_has_too_few_seeds(tmp_path: Path) -> None:
    found = groups_of(write_sweep(tmp_path, {"a": {1: 0.9, 2: 0.91, 3: 0.92}, "b": {1: 0.8}}))
    assert "they have too few seeds (b: one)" in found.verdict()


def test_runs_that_a_sweeper_ended_are_not_ranked(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"a": {1: 0.9}, "b": {1: 0.8}})
    status = json.loads((tmp_path / "1" / "status.json").read_text())
    (tmp_path / "1" / "status.json").write_text(json.dumps(status | {"pruned": True}))
    assert [group.name for group in groups_of(tmp_path).groups] == ["a"]
    text = write_comparison_page(run_folders(tmp_path), tmp_path / "r.html", "t").read_text()
    assert "1 ended early by the sweeper" in text


def test_links_to_odd_names(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name) for name in ("a#b c%20?", "d")]
    for folder in folders:
        (folder / "report.html").write_text("a page")
    text = write_comparison_page(folders, tmp_path / "r.html", "t").read_text()
    assert 'href="a%23b%20c%2520%3F/report.html"' in text


def test_settings_without_effect_are_named(tmp_path: Path) -> None:
    same = {1: 0.6, 2: 0.7}
    found = groups_of(write_sweep(tmp_path, {"a": same, "b": dict(same)}))
    assert "a and b: equal in every digit for every seed" in found.verdict()
    assert all(0 <= end <= 1 for group in found.groups for end in group.accuracy)


def test_jobs_that_were_renamed_are_there(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"a": {1: 0.9}, "b": {1: 0.8}})
    (tmp_path / "1").rename(tmp_path / "mine")
    assert [folder.name for folder in run_folders(tmp_path)] == ["0", "mine"]


def test_an_unfinished_sweep_says_so(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"a": {1: 0.9}, "b": {1: 0.8}})
    write_run(tmp_path / "1", result={"train/loss": 1.0}, state="stopped")
    text = write_comparison_page(run_folders(tmp_path), tmp_path / "r.html", "t").read_text()
    assert "1 of 2 runs: stopped" in text


def test_runs_of_two_sweeps_have_names_of_their_own(tmp_path: Path) -> None:
    folders = [
        folder
        for name in ("first", "second")
        for folder in run_folders(write_sweep(tmp_path / name, {"a": {1: 0.9, 2: 0.91}}))
    ]
    text = write_comparison_page(folders, tmp_path / "r.html", "t").read_text()
    assert "first/0" in text
    assert "second/0" in text


def test_runs_that_differ_in_many_settings_stand_side_by_side(tmp_path: Path) -> None:
    """Columns for twenty settings would be a few letters wide."""
    for name, value in (("one", 1), ("two", 2)):
        head = {"name": "arcface"} | {f"setting{n}": value * n for n in range(1, 21)}
        write_run(tmp_path / name, config={"head": head}, result={"val/dev/accuracy": 0.9})
    table = compare_runs([tmp_path / "one", tmp_path / "two"])
    assert [column.header for column in table.columns] == ["run", "one", "two"]
    cells = list(zip(*(column.cells for column in table.columns), strict=True))
    assert ("head.setting7", "7", "14") in cells
    assert ("val/dev/accuracy", "90.00", "90.00") in cells
