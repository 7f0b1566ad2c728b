"""What a command prints is in a file, too."""

import copy
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import Progress

from marginface.cli.printed import printed_to


def test_lines_of_both_streams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    for _ in range(2):  # a resumed run appends
        with printed_to(tmp_path / "run.log"):
            print("one")
            print("two", file=sys.stderr)
            sys.stderr.write("\r 10 %")  # a bar, which is drawn over itself
            sys.stderr.write("\r 20 %")
            Console(force_terminal=True).print("[red]three[/red] [link=https://x.y]four[/link]")
            print("begun", end="")
            assert sys.stdout.encoding == before[0].encoding
            assert copy.copy(sys.stdout).encoding == before[0].encoding
    assert (sys.stdout, sys.stderr) == before
    assert (tmp_path / "run.log").read_text() == "one\ntwo\nthree four\nbegun\n" * 2
    printed = capsys.readouterr()
    assert printed.out.count("\x1b[31mthree\x1b[0m ") == 2
    assert printed.err == "two\n\r 10 %\r 20 %" * 2


@pytest.mark.parametrize("bars", [1, 2])
def test_lines_above_a_bar(bars: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """rich writes them together with the bar that it draws anew."""
    with printed_to(tmp_path / "run.log"):
        print("before")
        with Progress(console=Console(force_terminal=True, width=60), auto_refresh=False) as bar:
            tasks = [bar.add_task(f"task {number}", total=9) for number in range(bars)]
            bar.refresh()
            for step in range(9):
                print(f"step {step}")
                print("and more", file=sys.stderr)
                for task in tasks:
                    bar.advance(task)
                bar.refresh()
        print("after")
    lines = (tmp_path / "run.log").read_text().splitlines()
    said = [line for line in lines if "task" not in line and line]
    assert said == ["before", *(w for s in range(9) for w in (f"step {s}", "and more")), "after"]
    assert len(lines) - len(said) <= 2 * bars, "bars are not kept again and again"
    assert "step 3" in capsys.readouterr().out


def test_a_full_disk_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with printed_to(Path("/dev/full")):
        print("still here")
    assert capsys.readouterr().out == "still here\n"


def test_an_error_is_on_its_way(tmp_path: Path) -> None:
    before = sys.stdout
    with pytest.raises(KeyError), printed_to(tmp_path / "run.log"):
        print("one")
        raise KeyError("x")
    assert sys.stdout is before
    assert (tmp_path / "run.log").read_text() == "one\n"


def test_streams_that_are_closed_or_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent:
        def write(self, text: str) -> None:  # which tells no number, as some do
            pass

        def flush(self) -> None:
            pass

    silent = Silent()
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", silent)
    with printed_to(tmp_path / "run.log"):
        print("nowhere")
        print("here", file=sys.stderr)
        monkeypatch.setattr(sys, "stdout", silent)
    assert sys.stdout is sys.stderr is silent
    assert (tmp_path / "run.log").read_text() == "here\n"
