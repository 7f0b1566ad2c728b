"""Errors of SQLite in words."""

import sqlite3
from pathlib import Path

from marginface.utils.errors import InputError


def problem_with(path: Path, error: sqlite3.Error) -> InputError:
    """What an error of SQLite means for a gallery, and what to do."""
    text = str(error)
    if "locked" in text or "busy" in text:
        return InputError(
            f"{path} is being written by another program; one writer at a time, try again"
        )
    if getattr(error, "sqlite_errorname", "") == "SQLITE_READONLY_DBMOVED":
        return InputError(f"{path} was replaced by another program in this moment; try again")
    if "readonly" in text or "read-only" in text:
        return InputError(f"{path} cannot be written: no right to write it or its folder")
    if "full" in text or "disk I/O" in text:
        return InputError(f"{path} was not changed: {text} (no space left?)")
    if "malformed" in text or "not a database" in text or isinstance(error, sqlite3.DatabaseError):
        return InputError(f"{path} is damaged ({text}); take a copy of it, or enroll again")
    return InputError(f"{path}: {text}")
