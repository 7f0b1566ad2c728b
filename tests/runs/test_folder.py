"""The files of a run folder."""

from pathlib import Path

import pytest

from marginface.runs.folder import RunFolder
from marginface.utils.errors import MissingInputError


def test_a_folder_of_something_else_and_none(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="is not a run folder: it has no config.yaml"):
        RunFolder(tmp_path).read_config()
    with pytest.raises(MissingInputError, match="is not a run folder: it does not exist"):
        RunFolder(tmp_path / "other").read_config()
