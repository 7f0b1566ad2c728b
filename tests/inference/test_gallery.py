"""Galleries: what is found, what is refused, what is forgotten, what a crash leaves."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import marginface
from helpers.small_models import random_faces, small_model
from marginface.cli.enroll import enroll_people
from marginface.inference.gallery_binding import bound_to
from marginface.inference.gallery_check import check_gallery, check_lines, export_gallery
from marginface.inference.gallery_file import GalleryFile, ImageRow
from marginface.inference.gallery_opening import create_gallery_file, open_gallery_file
from marginface.inference.model import Model
from marginface.metrics.thresholds import Threshold
from marginface.utils.errors import InputError, MissingInputError

PEOPLE = 40


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """(people, 4, 112, 112, 3): the first 40 are enrolled with three each, the others strangers."""
    return random_faces(2 * PEOPLE, 4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def gallery(model: Model, pictures: np.ndarray, tmp_path: Path) -> Iterator[marginface.Gallery]:
    with marginface.Gallery.open(tmp_path / "a.gallery", model, create=True) as opened:
        for person in range(PEOPLE):
            opened.enroll_aligned(f"person {person}", pictures[person, :3])
        yield opened


def test_people_are_found(gallery: marginface.Gallery, pictures: np.ndarray, model: Model) -> None:
    assert len(gallery) == PEOPLE
    assert gallery.names[3] == "person 3"
    answers = gallery.identify_aligned(pictures[:PEOPLE, 3], fpir=0.1)
    assert np.mean([a.name == f"person {n}" for n, a in enumerate(answers)]) > 0.9
    strangers = gallery.identify_aligned(pictures[PEOPLE:, 3], fpir=0.1)
    assert np.mean([a.name is not None for a in strangers]) < 0.35
    assert answers[0].threshold == strangers[0].threshold
    # The nearest, by a loop over means of unit vectors.
    unit = model.embed_aligned(pictures[:PEOPLE, :3].reshape(-1, 112, 112, 3)).astype(np.float16)
    mean = unit.astype(np.float64).reshape(PEOPLE, 3, -1).mean(1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    probe = model.embed_aligned(pictures[PEOPLE:, 3]).astype(np.float64)
    for n, answer in enumerate(strangers):
        scores = mean @ probe[n]
        order = np.argsort(-scores)[:5]
        assert [name for name, _ in answer.candidates] == [f"person {p}" for p in order]
        np.testing.assert_allclose([c for _, c in answer.candidates], scores[order], atol=1e-5)
        assert answer.cosine == answer.candidates[0][1]
    assert "unknown: nearest" in str(gallery.identify_aligned(pictures[50, 0], threshold=1.0)[0])
    (one,) = gallery.identify(pictures[7, 3], threshold=0.5, top=1)
    assert (one.name, len(one.candidates)) == ("person 7", 1)


def test_the_gallery_calibrates_itself(gallery: marginface.Gallery) -> None:
    """The threshold is the quantile of each image's best score among other people, by a loop."""
    memory = gallery.memory
    best = []
    for image, owner in zip(memory.vectors, memory.owner, strict=True):
        others = [n for n in range(PEOPLE) if n != owner]
        best.append(float((memory.templates[others] @ image).max()))
    found = gallery.threshold(0.05)
    assert (found.source, found.people) == ("gallery", PEOPLE)
    share = np.mean(np.array(best) >= found.cosine)
    assert share <= 0.05
    assert np.mean(np.array(best) >= found.cosine - 0.02) > share
    assert "from the 40 people of the gallery themselves" in str(found)


def test_small_galleries_take_the_threshold_of_the_model(
    gallery: marginface.Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InputError, match="needs 200 people.*which has 40; and of the model's.*2.5e-4"
    ):
        gallery.threshold(0.01)

    def known(impostors: int) -> tuple[Threshold, ...]:
        return tuple(
            Threshold(f, 0.5 - 0.1 * np.log10(f), 0, 1, 0, impostors, "s", True, "")
            for f in (1e-2, 1e-3, 1e-4)
        )

    def with_thresholds(impostors: int) -> None:
        update = {"thresholds": known(impostors)}
        about = gallery.model.description.model_copy(update=update)
        monkeypatch.setattr(gallery.model, "description", about)
        gallery._known().thresholds.clear()

    with_thresholds(10**6)
    found = gallery.threshold(0.01)
    fmr = 1 - 0.99 ** (1 / PEOPLE)
    assert found.source == "model"
    assert found.cosine == pytest.approx(0.5 - 0.1 * np.log10(fmr))
    with_thresholds(1000)
    with pytest.raises(InputError, match="do not know FMR 2.5.*Enroll more people"):
        gallery.threshold(0.01)
    for fpir in (0, 1, 2.0):
        with pytest.raises(InputError, match="between 0 and 1"):
            gallery.threshold(fpir)


def test_gates(model: Model, pictures: np.ndarray, tmp_path: Path) -> None:
    with marginface.Gallery.open(tmp_path / "a.gallery", model, create=True) as gallery:
        for person in range(5):
            gallery.enroll_aligned(f"p{person}", pictures[person, :2])
        with pytest.raises(InputError, match="'x' was not enrolled: array 0: the very same photo"):
            gallery.enroll_aligned("x", pictures[0, :1])
        with pytest.raises(InputError, match="the very same photograph as array 0"):
            gallery.enroll_aligned("x", pictures[[9, 9], 0])
        with pytest.raises(
            InputError, match=r"nearer to 'p1' \(cosine 0.9.*of 'p0'.*somebody else"
        ):
            gallery.enroll_aligned("p0", pictures[1, 2:3])
        mixed = pictures[[9, 9, 9, 1], [0, 1, 2, 3]]
        done = gallery.enroll_aligned("new", mixed, refused="skip")
        assert (done.added, [r.gate for r in done.refused]) == (3, ["mislabel"])
        assert done.refused[0].photo == "array 3"
        with pytest.raises(InputError, match="norm of its embedding is .*at least 1e\\+09"):
            gallery.enroll_aligned("y", pictures[10, :1], min_norm=1e9)
        with pytest.raises(InputError, match="a person needs a name"):
            gallery.enroll_aligned(" ", pictures[10, :1])
        assert gallery.names == ["p0", "p1", "p2", "p3", "p4", "new"]
        forced = gallery.enroll_aligned("p0", pictures[1, :2], force=True, min_norm=1e9)
        assert forced.added == 2
        (tmp_path / "bad.png").write_bytes(b"x")
        with pytest.raises(InputError, match="bad.png: not a decodable image"):
            gallery.enroll("z", [tmp_path / "bad.png"], force=True)
        before = gallery.memory
        gallery._kept = None  # what the file holds is what was kept in memory
        assert gallery.memory.names == before.names
        assert torch.equal(gallery.memory.vectors, before.vectors)
        torch.testing.assert_close(gallery.memory.templates, before.templates)


def pieces_in(path: Path, vectors: np.ndarray) -> int:
    """32-byte pieces of float16 vectors that are in a file or its journals."""
    files = [p for p in path.parent.iterdir() if p.name.startswith(path.name)]
    content = b"".join(file.read_bytes() for file in files)
    blobs = [vector.astype(np.float16).tobytes() for vector in vectors]
    return sum(
        blob[at : at + 32] in content for blob in blobs for at in range(0, len(blob) - 31, 32)
    )


def random_rows(count: int, rng: np.random.Generator) -> tuple[np.ndarray, list[ImageRow]]:
    vectors = rng.standard_normal((count, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [ImageRow(v, 1.0, 0.9, rng.bytes(16), "a/b.jpg") for v in vectors]
    return vectors, rows


@pytest.mark.parametrize("seed", range(3))
def test_removed_people_are_forgotten(seed: int, tmp_path: Path) -> None:
    """After any history no piece of a vector, and no name, is left in the file."""
    path = tmp_path / "a.gallery"
    file = create_gallery_file(path, {"digest": "x"})
    rng = np.random.default_rng(seed)
    alive: dict[str, np.ndarray] = {}
    gone: dict[str, np.ndarray] = {}
    for step in range(120):
        if alive and rng.random() < 0.45:
            name = str(rng.choice(list(alive)))
            gone[name] = alive.pop(name)
            assert file.remove(name) == len(gone[name])
        else:
            name = f"somebody {step} of {seed}"
            alive[name], rows = random_rows(int(rng.integers(1, 20)), rng)
            file.add(name, rows)
    everybody = path.read_bytes()
    for name, vectors in gone.items():
        assert pieces_in(path, vectors[:3]) == 0
        assert name.encode() not in everybody
    assert pieces_in(path, next(iter(alive.values()))[:1]) == 32
    assert file.removed() == sum(map(len, gone.values()))
    before, after = file.compact()
    assert after < before
    assert pieces_in(path, np.concatenate(list(gone.values()))[:20]) == 0
    rows_left = file.rows(512)
    assert sorted(rows_left.names) == sorted(alive)
    for place, name in enumerate(rows_left.names):
        kept = rows_left.vectors[rows_left.owner == place]
        np.testing.assert_array_equal(kept, alive[name].astype(np.float16))
    assert file.damage() is None
    assert file.remove("nobody") == 0


WRITER = """
import sys
sys.path[:0] = sys.argv[3:]
import numpy as np
from pathlib import Path
from test_gallery import random_rows
from marginface.inference.gallery_opening import open_gallery_file
file = open_gallery_file(Path(sys.argv[1]))
rng = np.random.default_rng(int(sys.argv[2]))
print("ready", flush=True)
for number in range(10_000):
    file.add(f"p{number}", random_rows(5, rng)[1])
    if number % 3 == 2:
        file.remove(f"p{number - 1}")
"""


def killed_while_writing(path: Path, seed: int, seconds: float) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            WRITER,
            str(path),
            str(seed),
            str(Path(__file__).parent),
            str(Path(__file__).parents[1]),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)


def check_whole(path: Path, seed: int) -> int:
    """Everybody has all five images, those who were removed none; returns how many are left."""
    file = open_gallery_file(path)
    assert file.damage() is None
    people = file.listing()
    assert all(images == 5 for _, images, _ in people)
    names = {name for name, _, _ in people}
    rng = np.random.default_rng(seed)
    last = max((int(name[1:]) for name in names), default=-1)
    for number in range(last + 1):
        vectors = random_rows(5, rng)[0]
        if f"p{number}" not in names:
            assert pieces_in(path, vectors) == 0
    file.close()
    return len(names)


@pytest.mark.slow
def test_killed_while_enrolling(tmp_path: Path) -> None:
    left = 0
    for seed in range(3):
        path = tmp_path / f"{seed}.gallery"
        create_gallery_file(path, {"digest": "x"}).close()
        killed_while_writing(path, seed, 0.1 + 0.07 * seed)
        left += check_whole(path, seed)
    assert left > 0, "nothing was written before the kill"


@pytest.mark.long
def test_killed_while_enrolling_often(tmp_path: Path) -> None:
    for seed in range(20):
        path = tmp_path / f"{seed}.gallery"
        create_gallery_file(path, {"digest": "x"}).close()
        killed_while_writing(path, seed, 0.02 + 0.013 * seed)
        check_whole(path, seed)


def test_bound_to_its_model(
    model: Model, pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gallery"
    with marginface.Gallery.open(path, model, create=True) as gallery:
        gallery.enroll_aligned("a", pictures[0, :2])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"PNG" not in path.read_bytes()
    without = small_model(tmp_path, flip=False)
    monkeypatch.setattr(without, "digest", model.digest)
    with pytest.raises(InputError, match="made with the mirror image added, this model.*without"):
        marginface.Gallery.open(path, without)
    monkeypatch.setattr(without, "digest", "f" * 64)
    with pytest.raises(
        InputError, match="was made by sha256:.*, this model is sha256:ffff.*rebuild"
    ):
        marginface.Gallery.open(path, without)
    with marginface.Gallery.open(path, model) as gallery:
        assert gallery.names == ["a"]
    with (
        pytest.raises(InputError, match="nobody is called 'b'. Did you mean|nobody is called 'b'"),
        marginface.Gallery.open(path, model) as gallery,
    ):
        gallery.remove("b")


def test_files_that_are_no_gallery(model: Model, pictures: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "a.gallery"
    with pytest.raises(MissingInputError, match="no gallery .*marginface enroll. makes one"):
        marginface.Gallery.open(path, model)
    with pytest.raises(MissingInputError, match="no folder .*none"):
        marginface.Gallery.open(tmp_path / "none" / "a.gallery", model, create=True)
    for content, words in ((b"", "is not a gallery"), (b"PK\3\4" * 99, "is not a gallery")):
        path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            marginface.Gallery.open(path, model)
        with pytest.raises(InputError, match=words):  # and it is not made anew over that
            marginface.Gallery.open(path, model, create=True)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE a (b)")
    connection.commit()
    with pytest.raises(InputError, match="a SQLite file, but not a gallery"):
        marginface.Gallery.open(path, model)
    path.unlink()
    with marginface.Gallery.open(path, model, create=True) as gallery:
        for person in range(20):
            gallery.enroll_aligned(f"p{person}", pictures[person, :3])
        whole = path.read_bytes()
    with (
        pytest.raises(InputError, match="is empty; enroll somebody first"),
        marginface.Gallery.open(tmp_path / "b.gallery", model, create=True) as gallery,
    ):
        gallery.identify_aligned(pictures[0, :1])
    vector = gallery_vector(path)
    at = whole.index(vector)
    path.write_bytes(whole[:at] + bytes(len(vector)) + whole[at + len(vector) :])
    with (
        pytest.raises(InputError, match="damaged: the vector of image 1 is not of unit length"),
        marginface.Gallery.open(path, model) as gallery,
    ):
        gallery.identify_aligned(pictures[0, :1], threshold=0.5)
    path.write_bytes(whole[:20_000] + os.urandom(30_000) + whole[50_000:])
    with (
        pytest.raises(InputError, match="damaged"),
        marginface.Gallery.open(path, model) as gallery,
    ):
        gallery.identify_aligned(pictures[0, :1], threshold=0.5)
    path.write_bytes(whole[: len(whole) // 2])
    with (
        pytest.raises(InputError, match="damaged"),
        marginface.Gallery.open(path, model) as gallery,
    ):
        gallery.identify_aligned(pictures[0, :1], threshold=0.5)


def gallery_vector(path: Path) -> bytes:
    blob: bytes = sqlite3.connect(path).execute("SELECT vector FROM image").fetchone()[0]
    return blob


def test_one_writer_at_a_time(
    model: Model, pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marginface.inference.gallery_opening._WAIT", 0.1)
    path = tmp_path / "a.gallery"
    with marginface.Gallery.open(path, model, create=True) as gallery:
        gallery.enroll_aligned("a", pictures[0, :1])
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match="is being written by another program"):
            gallery.enroll_aligned("b", pictures[1, :1])
        assert gallery.identify_aligned(pictures[0, 1], threshold=0.5)[0].name == "a"
        other.execute("ROLLBACK")
        gallery.enroll_aligned("b", pictures[1, :1])


def test_others_that_write_between_two_queries(
    model: Model, pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a reader finds was there at one time, and nothing of its own is counted twice."""
    path = tmp_path / "a.gallery"
    with (
        marginface.Gallery.open(path, model, create=True) as gallery,
        marginface.Gallery.open(path, model) as other,
    ):
        gallery.enroll_aligned("a", pictures[0, :2])
        connection = gallery.file._connection
        monkeypatch.setattr(gallery.file, "_connection", Interrupted(connection, other, pictures))
        rows = gallery.file.rows(model.embedding_size)
        assert rows.owner.tolist() == [0, 0], "b was enrolled meanwhile, after the people were read"
        monkeypatch.undo()
        assert gallery.names == ["a", "b"]
        add = GalleryFile.add

        def late(file: GalleryFile, subject: str, images: list[ImageRow]) -> None:
            monkeypatch.undo()
            other.enroll_aligned("c", pictures[2, :1])
            add(file, subject, images)

        monkeypatch.setattr(GalleryFile, "add", late)
        gallery.enroll_aligned("a", pictures[0, 2:3])
        assert gallery.names == ["a", "b", "c"]
        assert len(gallery.memory.vectors) == len(other.memory.vectors) == 5


class Interrupted:
    """A connection beside which another program tries to enroll before the images are read."""

    def __init__(
        self, connection: sqlite3.Connection, other: marginface.Gallery, pictures: np.ndarray
    ) -> None:
        self._connection, self._other, self._pictures = connection, other, pictures

    def execute(self, query: str, *values: object) -> sqlite3.Cursor:
        if query.startswith("SELECT id, subject"):
            self._other.file._connection.execute("PRAGMA busy_timeout = 10")
            with pytest.raises(InputError, match="is being written by another program"):
                self._other.enroll_aligned("b", self._pictures[1, :1])
            found = self._connection.execute(query, *values).fetchall()
            self._connection.execute("ROLLBACK")
            self._other.enroll_aligned("b", self._pictures[1, :1])
            self._connection.execute("BEGIN")
            return Found(found)  # type: ignore[return-value]
        return self._connection.execute(query, *values)

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


class Found:
    """A cursor of which all rows were fetched."""

    def __init__(self, rows: list[tuple[object, ...]]) -> None:
        self.rows = rows

    def fetchall(self) -> list[tuple[object, ...]]:
        return self.rows


def test_a_file_that_was_replaced(model: Model, pictures: np.ndarray, tmp_path: Path) -> None:
    """As by a rebuild: the old file is still open, but nobody's any more."""
    path = tmp_path / "a.gallery"
    with marginface.Gallery.open(path, model, create=True) as gallery:
        gallery.enroll_aligned("a", pictures[0, :1])
        with marginface.Gallery.open(tmp_path / "b", model, create=True) as anew:
            anew.enroll_aligned("b", pictures[1, :1])
        (tmp_path / "b").replace(path)
        assert gallery.names == ["b"]
        gallery.enroll_aligned("c", pictures[2, :1])
        with marginface.Gallery.open(path, model) as again:
            assert again.names == ["b", "c"]
        listing = gallery.file.listing()
        stale = open_gallery_file(path)
        create_gallery_file(tmp_path / "same", bound_to(model)).close()
        (tmp_path / "same").replace(path)  # meanwhile, with nobody in it
        with pytest.raises(InputError, match="was changed while it was rebuilt"):
            stale.replace_by(tmp_path / "none", listing)
        create_gallery_file(tmp_path / "other", {"digest": "0" * 64}).close()
        (tmp_path / "other").replace(path)
        with pytest.raises(InputError, match="was made by sha256:000000000000"):
            gallery.remove("b")


def test_threads_beside_a_file_that_is_replaced(
    model: Model, pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file is closed when nobody reads it any more."""
    path = tmp_path / "a.gallery"
    with marginface.Gallery.open(path, model, create=True) as gallery:
        gallery.enroll_aligned("a", pictures[0, :3])
        content = path.read_bytes()
        monkeypatch.chdir(tmp_path.parent)
        with ThreadPoolExecutor(4) as threads:
            found = [threads.submit(lambda: [len(gallery) for _ in range(100)]) for _ in range(4)]
            for number in range(30):
                (tmp_path / f"{number}").write_bytes(content)
                (tmp_path / f"{number}").replace(path)
            assert {n for f in found for n in f.result()} == {1}
    monkeypatch.chdir(tmp_path)
    with marginface.Gallery.open("a.gallery", model) as gallery:
        monkeypatch.chdir(tmp_path.parent)
        assert gallery.names == ["a"]


def test_enrolling_stops_where_the_file_cannot_be_written(
    model: Model, pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photograph may be refused, and the next one fine; a full disk is full for all of them."""
    monkeypatch.setattr("marginface.inference.gallery_opening._WAIT", 0.1)
    people = {}
    for person in range(3):
        people[f"p{person}"] = [str(tmp_path / f"{person}.png")]
        cv2.imwrite(people[f"p{person}"][0], pictures[person, 0, ..., ::-1])
    people = {"": people["p0"], **people}
    aligned = replace(model.photos, detector="none")
    monkeypatch.setattr(model, "photos", aligned)
    path = tmp_path / "a.gallery"
    with marginface.Gallery.open(path, model, create=True) as gallery:
        line = enroll_people(gallery, people, force=False, min_norm=0.0)
        assert line.startswith("3 photographs of 3 people enrolled, 1 refused; 3 people in ")
        gallery.remove("p1")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match="by another .*; 0 people were enrolled before"):
            enroll_people(gallery, people, force=False, min_norm=0.0)
        other.close()


def test_without_the_right_to_write(
    model: Model, pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.gallery"
    with marginface.Gallery.open(path, model, create=True) as gallery:
        gallery.enroll_aligned("a", pictures[0, :1])
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may do everything
    with marginface.Gallery.open(path, model) as gallery:
        assert gallery.identify_aligned(pictures[0, 1], threshold=0.5)[0].name == "a"
        with pytest.raises(InputError, match="no right to write it"):
            gallery.enroll_aligned("b", pictures[1, :1])


def test_a_full_disk(model: Model, pictures: np.ndarray, tmp_path: Path) -> None:
    """A change that does not fit is taken back."""
    path = tmp_path / "a.gallery"
    with marginface.Gallery.open(path, model, create=True) as gallery:
        gallery.enroll_aligned("a", pictures[0, :1])
        pages = gallery.file._connection.execute("PRAGMA page_count").fetchone()[0]
        gallery.file._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(InputError, match=r"was not changed: .*full \(no space left\?\)"):
            for person in range(1, 60):
                gallery.enroll_aligned(f"p{person}", pictures[person, :4], force=True)
        names = gallery.names
        gallery._kept = None
        assert gallery.names == names


def test_changes_by_others_are_seen(model: Model, pictures: np.ndarray, tmp_path: Path) -> None:
    """A person who is removed by another program is not named any more."""
    path = tmp_path / "a.gallery"
    with (
        marginface.Gallery.open(path, model, create=True) as gallery,
        marginface.Gallery.open(path, model) as other,
    ):
        gallery.enroll_aligned("a", pictures[0, :2])
        gallery.enroll_aligned("b", pictures[1, :2])
        assert other.identify_aligned(pictures[0, 2], threshold=0.5)[0].name == "a"
        gallery.remove("a")
        (answer,) = other.identify_aligned(pictures[0, 2], threshold=0.5)
        assert answer.name != "a"
        assert other.names == ["b"]
        other.enroll_aligned("a", pictures[0, :2])  # the same photographs, which are forgotten
        assert gallery.names == ["b", "a"]


def test_names_and_photographs_of_other_kinds(
    model: Model, pictures: np.ndarray, tmp_path: Path
) -> None:
    import cv2

    one = str(tmp_path / "one.png")
    cv2.imwrite(one, pictures[0, 0][..., ::-1])
    with marginface.Gallery.open(tmp_path / "a.gallery", model, create=True) as gallery:
        assert gallery.enroll("one", one).added == 1
        assert gallery.enroll("two", pictures[1, 0]).added == 1
        for name, words in (
            (5, "a person needs a name, got 5"),
            ("x\udcff", "the name .* is no UTF-8"),
        ):
            with pytest.raises(InputError, match=words):
                gallery.enroll_aligned(name, pictures[2, :1])  # type: ignore[arg-type]
        with pytest.raises(InputError, match="one face a photograph, not face=all"):
            gallery.enroll("x", one, face="all")

        class Picture:
            def convert(self, mode: str) -> None: ...

        with pytest.raises(InputError, match="np.asarray\\(image.convert"):
            gallery.identify(Picture(), threshold=0.5)  # type: ignore[arg-type]


def test_norms_of_another_flip_are_no_gate(pictures: np.ndarray, tmp_path: Path) -> None:
    from marginface.inference.description import Description

    for flip in (True, False):
        model = small_model(tmp_path, flip=flip)
        about = model.description.model_dump() | {"min_norm": 1e9, "min_norm_flip": True}
        stated = Description.model_validate(about)
        assert stated.min_norm == 1e9
    from marginface.inference.export_onnx import ExportOptions, export_onnx
    from marginface.inference.open_model import open_model

    source = open_model(tmp_path / "small.onnx", given={"color": "rgb"})
    source = type(source)(**{**vars(source), "description": stated})
    export_onnx(source, tmp_path / "half.onnx", ExportOptions(precision="fp16"))
    evaluated, other = (marginface.load(tmp_path / "half.onnx", flip=f) for f in (True, False))
    assert evaluated.description.min_norm == 1e9
    assert other.description.min_norm is None


def test_check(model: Model, pictures: np.ndarray, tmp_path: Path) -> None:
    with marginface.Gallery.open(tmp_path / "a.gallery", model, create=True) as gallery:
        for person in range(PEOPLE):
            gallery.enroll_aligned(f"p{person}", pictures[person, :3])
        gallery.enroll_aligned("alone", pictures[50, :1])
        gallery.enroll_aligned("twin of p3", pictures[3, 3:], force=True)
        gallery.enroll_aligned("p5", pictures[6, 3:], force=True)
        check = check_gallery(gallery.file)
    assert (check.people, check.images, check.damage) == (PEOPLE + 2, 3 * PEOPLE + 3, None)
    assert ("p3", "twin of p3") in [pair[:2] for pair in check.alike]
    assert check.single == ["alone", "twin of p3"]
    assert ("p5", "p6") in [(entry[1], entry[3]) for entry in check.outliers]
    enough = {fpir: known for fpir, _, known in check.thresholds}
    assert enough == {0.1: True, 0.05: True, 0.02: False, 0.01: False, 0.001: False}
    lines = "\n".join(check_lines(check))
    assert "2 people have one photograph only: alone, twin of p3" in lines
    assert "FPIR 0.1: threshold 0." in lines
    assert "FPIR 0.01: not known, 200 people are needed" in lines


def test_export_to_parquet_and_into_qdrant(
    gallery: marginface.Gallery, pictures: np.ndarray, tmp_path: Path
) -> None:
    """The table, and the loader of docs/deployment.md on it."""
    import pyarrow.parquet as pq
    from qdrant_client import QdrantClient, models

    target = tmp_path / "people.parquet"
    assert export_gallery(gallery.file, target) == 3 * PEOPLE
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    table = pq.read_table(target)
    vectors = np.stack(table["vector"].to_numpy())
    np.testing.assert_array_equal(vectors, gallery.memory.vectors.numpy())
    client = QdrantClient(":memory:")
    size = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
    client.create_collection("people", vectors_config=size)
    points = [
        models.PointStruct(id=row["id"], vector=row["vector"], payload={"subject": row["subject"]})
        for row in table.to_pylist()
    ]
    client.upsert("people", points)
    probe = gallery.model.embed_aligned(pictures[5, 3])[0]
    exact = models.SearchParams(exact=True)
    found = client.query_points("people", probe.tolist(), limit=1, search_params=exact).points[0]
    assert found.payload == {"subject": "person 5"}
    with pytest.raises(InputError, match="exists; choose another name"):
        export_gallery(gallery.file, target)
    with pytest.raises(InputError, match="is exported as .parquet"):
        export_gallery(gallery.file, tmp_path / "a.csv")


def test_size_on_disk(tmp_path: Path) -> None:
    """A template of 512 numbers takes at most 1,150 bytes, with its person."""
    path = tmp_path / "a.gallery"
    file: GalleryFile = create_gallery_file(path, {"digest": "x"})
    rng = np.random.default_rng(0)
    sizes = []
    for number in range(3000):
        if number % 1000 == 0:
            sizes.append(path.stat().st_size)
        row = random_rows(1, rng)[1][0]._replace(path=None)
        file.add(f"person{number}", [row])
    assert (path.stat().st_size - sizes[1]) / 2000 <= 1150
