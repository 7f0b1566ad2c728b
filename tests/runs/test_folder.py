"""The files of a run folder."""

from pathlib import Path

import pytest

from marginface.runs.comparison import run_folders
from marginface.runs.folder import RunFolder
from marginface.utils.errors import MissingInputError


def test_a_folder_of_something_else_and_none(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="is not a run folder: it has no config.yaml"):
        RunFolder(tmp_path).read_config()
    with pytest.raises(MissingInputError, match="is not a run folder: it does not exist"):
        RunFolder(tmp_path / "other").read_config()
    (tmp_path / "best.ckpt").write_bytes(b"")
    with pytest.raises(MissingInputError, match="is not a run folder: it is a file; name its"):
        RunFolder(tmp_path / "best.ckpt").read_config()
    (tmp_path / ".hydra").mkdir()  # of a run or an evaluation that failed early
    (tmp_path / ".hydra" / "config.yaml").write_text("a: 1")
    assert run_folders(tmp_path) == [tmp_path]
