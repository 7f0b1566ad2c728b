"""Atomic writing of files: a crash leaves the old file or the new one."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from marginface.utils.console import print_warning
from marginface.utils.errors import InputError


@contextmanager
def atomic_write(path: Path, mode: str = "wb", *, private: bool = False) -> Iterator[IO[Any]]:
    """Open a neighbor of `path` for writing and rename it to `path` when the block succeeds.

    Args:
        private: readable by its owner alone, from the first byte on.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Names of files and people may hold any bytes.
        text: Any = {} if "b" in mode else {"encoding": "utf-8", "errors": "surrogateescape"}
        with open(temporary, mode, opener=_private if private else None, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def one_writer_of(path: Path) -> Iterator[None]:
    """Keep other processes that ask, too, from making `path` at the same time.

    Raises:
        InputError: another one is making it, or its folder cannot be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        opened = lock.open("a")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_mine = lock.stat().st_ino == os.fstat(file.fileno()).st_ino
        except (BlockingIOError, FileNotFoundError):
            is_mine = False
        except OSError as error:
            print_warning(
                f"the file system of {path} has no locks ({error.strerror}); see that no other "
                "process writes it at the same time"
            )
            is_mine = True
        if not is_mine:  # held, or removed by the one that held it just now
            raise InputError(f"another process is writing {path}; wait for it")
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def time_stamp() -> str:
    """The local time as it stands in names of folders."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON."""
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file says by name; {} where there is none.

    Raises:
        InputError: it is cut off or something else.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}; delete it to go on without it") from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} is damaged: it holds {type(content).__name__}, not values by name; delete it "
            "to go on without it"
        )
    return content


def write_lines(path: Path, lines: list[str]) -> None:
    """Write a text file, a line each; names of files and people may hold any bytes."""
    with atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
