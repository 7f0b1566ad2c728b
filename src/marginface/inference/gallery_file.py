"""A gallery on disk: one SQLite file with people and the unit vectors of their images.

What is removed is overwritten with zeros (secure_delete), and the journal of a change is deleted
with it; no pixels are kept. Rows of people who are removed stay, emptied: where SQLite deletes rows
it may move others to another page, and what they leave behind there it does not overwrite. Rows are
only ever added at the end and emptied in their place, so that no other copy comes about. `compact`
gives the room back. A person is added or removed in one transaction.
"""

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marginface.inference.gallery_errors import problem_with
from marginface.utils.errors import InputError

_AT_ONCE = 4096  # vectors


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
    """The file. Made by `gallery_opening`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection
        self.absolute = path.absolute()  # the same file in another working directory
        self._place = _place_of(self.absolute)
        self._lock = RLock()  # transactions are of the connection, not of a thread

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def was_replaced(self) -> bool:
        """Whether another file is in its place, as after a rebuild."""
        return _place_of(self.absolute) != self._place

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
            if self.was_replaced() or self.listing() != expected:
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
        with self._checked():
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
    def _checked(self) -> Iterator[None]:
        """Errors of SQLite in words."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise problem_with(self.path, error) from error

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """One transaction: all that is read in it was there at one time."""
        with self._checked():
            if self._connection.in_transaction:  # of the change that this is read for
                yield
                return
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("ROLLBACK")

    @contextmanager
    def _writing(self) -> Iterator["sqlite3._Execute"]:  # type: ignore[name-defined]
        """One transaction, which is taken back when the block fails."""
        with self._checked():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _place_of(path: Path) -> tuple[int, int] | None:
    """Which file has the name now; None for none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino
