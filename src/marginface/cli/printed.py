"""Keeps what a command prints in a file, too."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_COLORS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@contextmanager
def printed_to(path: Path) -> Iterator[None]:
    """Append what is printed to a file, without colors and without bars that are drawn anew.

    Args:
        path: of the file; several processes may append to it.
    """
    before = sys.stdout, sys.stderr
    with path.open("ab", buffering=0) as file:
        copies = _Copied(sys.stdout, file), _Copied(sys.stderr, file)
        sys.stdout, sys.stderr = copies
        try:
            yield
        finally:
            if (sys.stdout, sys.stderr) == copies:
                sys.stdout, sys.stderr = before


class _Copied:
    """A stream whose text goes to a file as well."""

    def __init__(self, stream: Any, file: IO[bytes]) -> None:
        self._stream, self._file = stream, file

    def write(self, text: str) -> int:
        """Print the text; a full disk, or a file that is closed, does not stop a training."""
        if "\r" not in text:  # lines that are to be overwritten
            with suppress(OSError, ValueError):
                self._file.write(_COLORS.sub("", text).encode(errors="surrogateescape"))
        return int(self._stream.write(text))

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
