"""A gallery on disk: one SQLite file with people and the unit vectors of their images.

What is removed is overwritten with zeros (secure_delete), and the journal of a change is deleted
with it; no pixels are kept. Rows of people who are removed stay, emptied: where SQLite deletes rows
it may move others to another page, and what they leave behind there it does not overwrite. Rows are
only ever added at the end and emptied in their place, so that no other copy comes about. `compact`
gives the room back. A person is added or removed in one transaction.
"""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marginface.utils.errors import InputError, MissingInputError

APPLICATION_ID = 0x6D666761  # "mfga"
FORMAT = 1
_HEADER = b"SQLite format 3\0"
_AT_ONCE = 4096  # vectors
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


class ImageRow(NamedTuple):
    """An image to be added.

    Attributes:
        vector: (D,) float32 of unit length.
        norm: of the embedding, NaN where it is hidden.
        score: of the detector, NaN where there is none.
        content: 16 bytes that stand for the photograph.
        path: kept only where asked for.
    """

    vector: NDArray[np.float32]
    norm: float
    score: float
    content: bytes
    path: str | None = None


class Rows(NamedTuple):
    """All that is enrolled.

    Attributes:
        names: (S,) of the subjects.
        owner: (N,) place in `names` of each image.
        vectors: (N, D) float16.
        images: (N,) ids.
    """

    names: list[str]
    owner: NDArray[np.int64]
    vectors: NDArray[np.float16]
    images: NDArray[np.int64]


class GalleryFile:
    """The file. Made by `create_gallery_file` and `open_gallery_file`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def version(self) -> int:
        """A number that changes when another program changes the file."""
        with self._reading():
            (number,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(number)

    def about(self) -> dict[str, str]:
        """What the gallery is bound to."""
        with self._reading():
            return dict(self._connection.execute("SELECT key, value FROM about"))

    def rows(self, width: int) -> Rows:
        """Everybody.

        Args:
            width: D of the vectors.

        Raises:
            InputError: a damaged file.
        """
        with self._reading():
            people = self._connection.execute(
                "SELECT id, name FROM subject WHERE name != '' ORDER BY id"
            ).fetchall()
            images = self._connection.execute(
                "SELECT id, subject, vector FROM image WHERE subject != 0 ORDER BY id"
            ).fetchall()
        vectors = np.empty((len(images), width), np.float16)
        for at in range(0, len(images), _AT_ONCE):  # a second copy of all would take as long again
            blob = b"".join([vector for _, _, vector in images[at : at + _AT_ONCE]])
            if len(blob) != vectors[at : at + _AT_ONCE].nbytes:
                raise InputError(f"{self.path} is damaged: vectors are not {width} numbers long")
            part = np.frombuffer(blob, np.float16).reshape(-1, width)
            vectors[at : at + _AT_ONCE] = part
        number, subject = (np.array([row[column] for row in images], np.int64) for column in (0, 1))
        ids = np.array([number for number, _ in people], np.int64)  # ascending
        owner = np.searchsorted(ids, subject)
        if len(images) and (not len(ids) or not np.array_equal(ids[owner % len(ids)], subject)):
            raise InputError(f"{self.path} is damaged: an image of nobody")
        return Rows([name for _, name in people], owner, vectors, number)

    def add(self, subject: str, images: Sequence[ImageRow]) -> None:
        """Add images of a person, all of them or none."""
        now = int(time.time())
        with self._writing() as run:
            found = run("SELECT id FROM subject WHERE name = ?", (subject,)).fetchone()
            if found is None:
                run("INSERT INTO subject (name, added) VALUES (?, ?)", (subject, now))
                found = run("SELECT last_insert_rowid()").fetchone()
            (number,) = found
            for image in images:
                row = (
                    number,
                    image.vector.astype(np.float16).tobytes(),
                    None if np.isnan(image.norm) else float(image.norm),
                    None if np.isnan(image.score) else float(image.score),
                    image.content,
                    now,
                    image.path,
                )
                run(
                    "INSERT INTO image (subject, vector, norm, score, content, added, path) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    row,
                )

    def remove(self, subject: str) -> int:
        """Remove a person; returns the number of images. 0 when nobody has the name."""
        with self._writing() as run:
            found = run("SELECT id FROM subject WHERE name = ?", (subject,)).fetchone()
            if found is None:
                return 0
            count: int = run(
                "UPDATE image SET subject = 0, vector = x'', norm = NULL, score = NULL, "
                "content = x'', added = 0, path = NULL WHERE subject = ?",
                found,
            ).rowcount
            run("UPDATE subject SET name = '', added = 0 WHERE id = ?", found)
        return max(count, 1)

    def replace_by(self, other: Path, expected: list[tuple[str, int, int]]) -> None:
        """Put another file in the place of this one, unless somebody changed this one meanwhile.

        Args:
            other: a gallery, closed.
            expected: the `listing` of this one that `other` was made from.

        Raises:
            InputError: it is another one now.
        """
        with self._writing():  # nobody else writes until it is replaced
            if self.listing() != expected:
                raise InputError(
                    f"{self.path} was changed while it was rebuilt, and was left as it is; rebuild "
                    "it again"
                )
            other.replace(self.path)

    def keeps_paths(self) -> bool:
        """Whether the path of any image is stored."""
        with self._reading():
            (count,) = self._connection.execute(
                "SELECT count(*) FROM image WHERE path IS NOT NULL"
            ).fetchone()
        return int(count) > 0

    def compact(self) -> tuple[int, int]:
        """Give back the room of people who were removed; returns the bytes before and after."""
        before = self.path.stat().st_size
        with self._writing() as run:
            run("DELETE FROM image WHERE subject = 0")
            run("DELETE FROM subject WHERE name = ''")
        with self._reading():
            self._connection.execute("PRAGMA temp_store = MEMORY")  # and in no file of its own
            self._connection.execute("VACUUM")
        return before, self.path.stat().st_size

    def removed(self) -> int:
        """Images whose room is not given back yet."""
        with self._reading():
            (count,) = self._connection.execute(
                "SELECT count(*) FROM image WHERE subject = 0"
            ).fetchone()
        return int(count)

    def contents(self) -> dict[bytes, str]:
        """Owner by photograph, of all."""
        with self._reading():
            return dict(
                self._connection.execute(
                    "SELECT content, name FROM image JOIN subject ON subject.id = image.subject"
                )
            )

    def listing(self) -> list[tuple[str, int, int]]:
        """Name, number of images and time (seconds since 1970) of each person, by name."""
        with self._reading():
            return self._connection.execute(
                "SELECT name, count(image.id), subject.added FROM subject LEFT JOIN image "
                "ON image.subject = subject.id WHERE name != '' GROUP BY subject.id ORDER BY name"
            ).fetchall()

    def details(self) -> list[tuple[int, str, float | None, float | None, int, str | None]]:
        """Image id, name, norm, score, time and path of each image."""
        with self._reading():
            return self._connection.execute(
                "SELECT image.id, name, norm, score, image.added, path FROM image "
                "JOIN subject ON subject.id = image.subject ORDER BY image.id"
            ).fetchall()

    def damage(self) -> str | None:
        """What SQLite finds wrong with the file; None when nothing is."""
        with self._reading():
            (word,) = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
        return None if word == "ok" else str(word)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _problem(self.path, error) from error

    @contextmanager
    def _writing(self) -> Iterator["sqlite3._Execute"]:  # type: ignore[name-defined]
        """One transaction, which is taken back when the block fails."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise _problem(self.path, error) from error


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
        raise _problem(path, error) from error
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
        raise _problem(path, error) from error
    if kind != APPLICATION_ID:
        raise InputError(f"{path} is a SQLite file, but not a gallery of marginface")
    if version != FORMAT:
        raise InputError(
            f"{path} is a gallery of format {version}, this version reads {FORMAT}; use a newer "
            "marginface"
        )
    return GalleryFile(path, connection)


def _problem(path: Path, error: sqlite3.Error) -> InputError:
    text = str(error)
    if "locked" in text or "busy" in text:
        return InputError(
            f"{path} is being written by another program; one writer at a time, try again"
        )
    if "readonly" in text or "read-only" in text:
        return InputError(f"{path} cannot be written: no right to write it or its folder")
    if "full" in text or "disk I/O" in text:
        return InputError(f"{path} was not changed: {text} (no space left?)")
    if "malformed" in text or "not a database" in text or isinstance(error, sqlite3.DatabaseError):
        return InputError(f"{path} is damaged ({text}); take a copy of it, or enroll again")
    return InputError(f"{path}: {text}")
