"""What a command prints is in a file, too."""

import sys
from pathlib import Path

import pytest
from rich.console import Console

from marginface.cli.printed import printed_to


def test_lines_of_both_streams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    for _ in range(2):  # a resumed run appends
        with printed_to(tmp_path / "run.log"):
            print("one")
            print("two", file=sys.stderr)
            sys.stderr.write("\r 10 %")  # a bar, which is drawn over itself
            Console(force_terminal=True).print("[red]three[/red]")
            assert sys.stdout.encoding == before[0].encoding
    assert (sys.stdout, sys.stderr) == before
    assert (tmp_path / "run.log").read_text() == "one\ntwo\nthree\n" * 2
    printed = capsys.readouterr()
    assert printed.out == "one\n\x1b[31mthree\x1b[0m\n" * 2
    assert printed.err == "two\n\r 10 %" * 2


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
