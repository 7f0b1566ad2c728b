"""Makes and opens gallery files."""

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from marginface.inference.gallery_errors import problem_with
from marginface.inference.gallery_file import GalleryFile
from marginface.utils.errors import InputError, MissingInputError

APPLICATION_ID = 0x6D666761  # "mfga"
FORMAT = 1
_HEADER = b"SQLite format 3\0"
_WAIT = 2.0  # seconds for another program that writes
_PAGE = 16384  # bytes; pages of 4,096 would waste a third
_SCHEMA = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE subject ( -- no index: names would stay behind in it
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, added INTEGER NOT NULL -- '' when removed
);
CREATE TABLE image (
    id INTEGER PRIMARY KEY,
    subject INTEGER NOT NULL, -- 0 when removed
    vector BLOB NOT NULL, -- float16, of unit length
    norm REAL, score REAL,
    content BLOB NOT NULL, -- first 16 bytes of the SHA-256 of the photograph
    added INTEGER NOT NULL, path TEXT
);
CREATE INDEX image_subject ON image(subject);
"""


def create_gallery_file(path: Path, about: Mapping[str, str]) -> GalleryFile:
    """A new, empty gallery, readable by its owner alone; it appears when it is complete.

    Raises:
        InputError: a file that exists, or a folder that cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.creating")
    try:
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(partial, isolation_level=None)
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
        connection.executemany("INSERT INTO about VALUES (?, ?)", list(about.items()))
        connection.close()
        os.link(partial, path)  # fails where another program was faster
    except FileExistsError as error:
        raise InputError(f"{path} exists; choose another name, nothing is overwritten") from error
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise problem_with(path, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return open_gallery_file(path)


def open_gallery_file(path: Path) -> GalleryFile:
    """A gallery that is there; to be read only where it cannot be written.

    Raises:
        MissingInputError: no such file.
        InputError: something else, damaged, of a newer version, or without the right to read it.
    """
    if not path.is_file():
        raise MissingInputError(f"no gallery {path}; `marginface enroll` makes one")
    try:
        with path.open("rb") as file:
            start = file.read(len(_HEADER))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    if start != _HEADER:
        raise InputError(f"{path} is not a gallery: it does not begin as a SQLite file")
    mode = "rw" if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK) else "ro"
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_WAIT,
            isolation_level=None, check_same_thread=False,
        )  # fmt: skip
        for setting in ("secure_delete = ON", "synchronous = FULL"):
            connection.execute(f"PRAGMA {setting}").fetchall()
        (kind,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error as error:
        raise problem_with(path, error) from error
    if kind != APPLICATION_ID:
        raise InputError(f"{path} is a SQLite file, but not a gallery of marginface")
    if version != FORMAT:
        raise InputError(
            f"{path} is a gallery of format {version}, this version reads {FORMAT}; use a newer "
            "marginface"
        )
    return GalleryFile(path, connection)
