"""`marginface compare` of evaluations."""

import shutil
from pathlib import Path

import html5lib
import numpy as np
import pytest
from typer.testing import CliRunner

from helpers.evaluations import everything, settings
from marginface.cli.main import app
from marginface.evaluation.comparison import read_evaluation
from marginface.evaluation.run import evaluate
from marginface.utils import renamed
from marginface.utils.errors import InputError, MissingInputError


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


def test_an_evaluation_of_version_0_1(evaluated: Path, tmp_path: Path) -> None:
    """Its decisions were called otherwise, and its protocol was spelled otherwise."""
    old = tmp_path / "old"
    shutil.copytree(evaluated / "out", old)
    with np.load(old / "scores.npz") as arrays:
        columns = {key.replace("/correct", "/right"): arrays[key] for key in arrays.files}
    assert any(key.endswith("/right") for key in columns)
    np.savez_compressed(old / "scores.npz", **columns)
    facts = old / "evaluation.json"
    text = facts.read_text()
    assert "normalized" in text
    for old_word, new_word in renamed._SPELLINGS.items():
        text = text.replace(new_word, old_word)
    facts.write_text(text)
    new, same = read_evaluation(evaluated / "out"), read_evaluation(old)
    assert same.protocols == new.protocols
    for key, decisions in new.decisions.items():
        assert np.array_equal(same.decisions[key].correct, decisions.correct)


def test_an_evaluation_that_did_not_end(evaluated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(evaluated / "out", folder)
    (folder / "result.json").write_text('{"a": 1')
    with pytest.raises(InputError, match="result.json is damaged"):
        read_evaluation(folder)
    (folder / "result.json").unlink()
    with pytest.raises(MissingInputError, match="has no result.json: that evaluation did not end"):
        read_evaluation(folder)
