"""Files that appear whole, written by one process at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from marginface.utils.errors import InputError
from marginface.utils.files import atomic_write, one_writer_of


def test_one_writer(tmp_path: Path) -> None:
    with one_writer_of(tmp_path / "a"):
        with (
            pytest.raises(InputError, match="another process is writing .*a; wait for it"),
            one_writer_of(tmp_path / "a"),
        ):
            pass
        with one_writer_of(tmp_path / "b"):  # something else
            pass
    with one_writer_of(tmp_path / "a"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_writer_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from marginface.utils.files import one_writer_of\n"
        "with one_writer_of(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")])
    assert done.returncode == -9
    with one_writer_of(tmp_path / "a"):
        pass


def test_names_of_any_bytes_are_written(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.csv", "w") as file:
        file.write(os.fsdecode(b"\xe9.jpg"))
    assert (tmp_path / "a.csv").read_bytes() == b"\xe9.jpg"
