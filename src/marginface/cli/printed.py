"""Keeps what a command prints in a file, too."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_UP = "\x1b[1A"  # a row of a bar that is drawn anew


@contextmanager
def printed_to(path: Path) -> Iterator[None]:
    """Append what is printed to a file, without colors and without bars that are drawn anew.

    Args:
        path: of the file; several processes may append to it.
    """
    with path.open("ab", buffering=0) as file:
        copies = {}
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None:  # closed, as of some daemons
                copies[name] = stream, _Copied(stream, file)
                setattr(sys, name, copies[name][1])
        try:
            yield
        finally:
            for name, (stream, copied) in copies.items():
                copied.end()
                if getattr(sys, name) is copied:
                    setattr(sys, name, stream)


class _Copied:
    """A stream whose lines go to a file as well."""

    def __init__(self, stream: Any, file: IO[bytes]) -> None:
        self._stream, self._file, self._begun = stream, file, ""

    def write(self, text: str) -> Any:
        """Print the text; a full disk, or a file that is closed, does not stop a training."""
        if "\r" in text:
            # A bar is drawn over its last drawing, perhaps with lines above it that stay.
            rows = text.count(_UP) + 1
            self._keep(_CODES.sub("", text).split("\n")[:-rows])
            self._begun = ""
        else:
            *lines, self._begun = (self._begun + _CODES.sub("", text)).split("\n")
            self._keep(lines)
        return self._stream.write(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def end(self) -> None:
        """Keep the line that was begun last."""
        if self._begun:
            self._keep([self._begun])
            self._begun = ""

    def _keep(self, lines: list[str]) -> None:
        if not lines:
            return
        shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
        with suppress(OSError, ValueError):
            self._file.write("\n".join([*shown, ""]).encode(errors="surrogateescape"))

    def __getattr__(self, name: str) -> Any:
        if name == "_stream":  # of a copy that is not made yet
            raise AttributeError(name)
        return getattr(self._stream, name)
