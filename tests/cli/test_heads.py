"""`marginface heads` and the page it writes."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from helpers.head_references import TARGETS
from helpers.paths import ROOT
from marginface.cli.main import app
from marginface.heads import list_heads
from marginface.heads.analysis.catalog import head_info, heads_page

runner = CliRunner()


def test_the_list_has_everything() -> None:
    listed = runner.invoke(app, ["heads"])
    assert listed.exit_code == 0
    for name in list_heads():
        assert f"{name} (" in listed.stdout
    for part in ("arXiv 2312.05281, 2023", "k=0.65", "needs the norm", "changes negatives"):
        assert part in listed.stdout


def test_show_draws_and_prints(tmp_path: Path) -> None:
    out = tmp_path / "curves.svg"
    arguments = ["heads", "show", "x2softmax", "--set", "k=0.6", "--out", str(out)]
    shown = runner.invoke(app, [*arguments, "--against", "arcface:margin=0.6,scale=32"])
    assert shown.exit_code == 0, shown.output
    drawn = ElementTree.fromstring(out.read_text())
    assert len(drawn.findall("{http://www.w3.org/2000/svg}svg")) == 4
    assert "x2softmax k=0.6" in shown.stdout
    assert "arcface margin=0.6,scale=32" in shown.stdout
    assert "-0.387" in shown.stdout  # f(60 degrees) = 0.6 - 0.9 (pi/3)^2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "x2sofmax"], "Did you mean 'x2softmax'"),
        (["show", "x2softmax", "--set", "k"], "--set takes key=value"),
        (["show", "x2softmax", "--out", "x.png"], "drawn as SVG; give a name that ends in .svg"),
        (["show", "x2softmax", "--set", "k=high"], "k='high'"),
        (["advise", "arcface", "--classes", "1"], "num_classes must be at least 2, got 1"),
        (
            ["advise", "curricularface", "--classes", "100", "--set", "loss=circle"],
            "loss 'circle' needs the plain cosines",
        ),
    ],
)
def test_mistakes_end_with_one_line(arguments: list[str], message: str) -> None:
    done = runner.invoke(app, ["heads", *arguments])
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


def test_advise() -> None:
    done = runner.invoke(app, ["heads", "advise", "cosface", "--classes", "93431"])
    assert "expected first loss 41.0" in done.stdout


def test_the_page_is_current() -> None:
    assert (ROOT / "docs" / "heads.md").read_text() == heads_page(), "run `make docs`"
    for name in list_heads():
        assert (ROOT / "docs" / "images" / "heads" / f"{name}.svg").is_file()


@pytest.mark.parametrize("name", TARGETS)
def test_every_head_says_where_it_comes_from(name: str) -> None:
    info = head_info(name)
    assert info.paper.endswith(".")
    assert "f = " in info.summary or name == "softmax"
    assert info.year is not None or name == "softmax"
