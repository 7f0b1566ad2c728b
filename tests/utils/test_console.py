"""Progress in a file: a line now and then, and none of what is quick."""

import sys
from pathlib import Path

import pytest

from marginface.utils import console


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_lines_after_five_seconds_and_then_every_ten(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in console.tracked(range(100), 100, "photographs"):
        clock[0] += 0.4
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "photographs: 13 of 100 (13%), 0:00:35 left"
    assert len(lines) == 4


def test_nothing_of_what_is_quick(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for _ in console.tracked(range(10), 10, "photographs"):
        clock[0] += 0.4
    assert capsys.readouterr().err == ""


def test_of_a_bar_that_is_updated(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bar() as bar:
        task = bar.add_task("faces", total=None)
        for done in range(0, 1000, 100):
            bar.update(task, completed=done, total=1000)
            clock[0] += 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "faces: 200 of 1,000 (20%), 0:00:24 left"


def test_nothing_done_yet(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress_bar() as bar:
        task = bar.add_task("faces", total=10)
        for _ in range(3):
            bar.update(task, completed=0)
            clock[0] += 20
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not console.progress_bar().disable


def test_iterating_through_the_bar(tmp_path: Path) -> None:
    with console.progress_bar() as bar:
        assert list(bar.track(range(5))) == list(range(5))
    assert sys.stderr is not None
