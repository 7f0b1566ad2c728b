"""`marginface compare` of evaluations."""

from pathlib import Path

import html5lib
from typer.testing import CliRunner

from helpers.evaluations import everything, settings
from marginface.cli.main import app
from marginface.evaluation.run import evaluate


def test_compare(evaluated: Path, run: Path, sets: Path, tmp_path: Path) -> None:
    other = settings(f"checkpoint={run}", *everything(sets), "flip=false", folder=tmp_path)
    evaluate(other)
    page = tmp_path / "page.html"
    folders = [str(evaluated / "out"), str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["compare", *folders, "--html", str(page)])
    assert done.exit_code == 0, done.output
    assert "custom_pairs/accuracy" in done.output
    assert "McNemar" in done.output
    html5lib.HTMLParser(strict=True).parse(page.read_text())
    again = CliRunner().invoke(app, ["compare", *folders, "--html", str(page)])
    assert again.exit_code == 2
    alone = CliRunner().invoke(app, ["compare", folders[0]])
    assert alone.exit_code == 2
    mixed = CliRunner().invoke(app, ["compare", folders[0], str(run)])
    assert mixed.exit_code == 2
