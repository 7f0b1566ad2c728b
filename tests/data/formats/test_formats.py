"""One set in every format is the same set; each format's own faults are sentences."""

import io
import json
import multiprocessing
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.pictures import jpegs, make_folder
from marginface.data import (
    FolderDataset,
    ListDataset,
    LMDBDataset,
    ParquetDataset,
    ShardDataset,
    make_loader,
    open_faces,
)
from marginface.data.dataset import close_gaps
from marginface.data.packing import pack
from marginface.utils.errors import InputError, MissingInputError

COUNTS = [2, 3, 1, 4]
LABELS = np.repeat(np.arange(4), COUNTS).tolist()


def write_tar(root: Path) -> Path:
    """webdataset: two shards, class numbers in .cls and .json."""
    root.mkdir()
    for shard in range(2):
        with tarfile.open(root / f"{shard:05d}.tar", "w") as archive:
            for number in range(shard, 10, 2):
                label = str(LABELS[number]).encode()
                entry = json.dumps({"label": LABELS[number], "source": "x"}).encode()
                members = {"jpg": jpegs(10)[number], "cls": label}
                if shard:
                    members = {"json": entry, "jpg": jpegs(10)[number]}
                for ending, content in members.items():
                    info = tarfile.TarInfo(f"{number:06d}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    return root


def write_zip(root: Path) -> Path:
    """Folders as identities, half of the members compressed."""
    root.mkdir()
    with zipfile.ZipFile(root / "faces.zip", "w") as archive:
        for number, image in enumerate(jpegs(10)):
            kind = zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED
            archive.writestr(f"set/p{LABELS[number]}/{number}.jpg", image, kind)
    return root


def write_parquet(root: Path) -> Path:
    """Hugging Face's layout: a struct of bytes and path, row groups of 3, names in the schema."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    root.mkdir()
    names = {
        "info": {"features": {"label": {"names": ["a", "b", "c", "d"], "_type": "ClassLabel"}}}
    }
    table = arrow.table(
        {
            "image": [{"bytes": image, "path": "x.jpg"} for image in jpegs(10)],
            "label": LABELS,
        }
    ).replace_schema_metadata({"huggingface": json.dumps(names)})
    parquet.write_table(table, root / "train-00000-of-00001.parquet", row_group_size=3)
    return root


def packed(format: str) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        pack(FolderDataset(make_folder(root / "source", COUNTS)), root / "packed", format)
        return root / "packed"

    return write


WRITERS: dict[str, Callable[[Path], Path]] = {
    "folder": lambda root: make_folder(root, COUNTS),
    "recordio": packed("recordio"),
    "list": packed("list"),
    "lmdb": packed("lmdb"),
    "tar": write_tar,
    "zip": write_zip,
    "parquet": write_parquet,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_set_in_every_format(kind: str, tmp_path: Path) -> None:
    faces = open_faces(WRITERS[kind](tmp_path / "set"))
    assert len(faces) == 10
    assert faces.num_classes == 4
    found = sorted((faces.image_bytes(i), int(faces.labels[i])) for i in range(10))
    assert found == sorted(zip(jpegs(10), LABELS, strict=True))
    reference, _, _ = faces.__getitems__(list(range(10)))
    for index in range(10):
        assert (faces[index][0] == reference[index]).all()


_STARTS = [  # a process that is spawned imports everything
    *((kind, "fork") for kind in ("lmdb", "tar", "zip", "parquet")),
    ("lmdb", "spawn"),
    *(pytest.param(kind, "spawn", marks=pytest.mark.slow) for kind in ("tar", "zip", "parquet")),
]


@pytest.mark.parametrize(("kind", "start"), _STARTS)
def test_workers(kind: str, start: str, tmp_path: Path) -> None:
    faces = open_faces(WRITERS[kind](tmp_path / "set"))
    here = [faces.image_bytes(i) for i in range(10)]
    with multiprocessing.get_context(start).Pool(2) as pool:
        assert pool.map(faces.image_bytes, range(10)) == here
    for _ in range(2):  # a second set of workers while this process has it open
        batches = list(make_loader(faces, batch_size=3, num_workers=2))
        assert [len(batch[0]) for batch in batches] == [3, 3, 3, 1]
        assert batches[3][1].tolist() == [faces.labels[9]]


class TestLists:
    """The kinds of lines that go round."""

    @pytest.mark.parametrize(
        ("text", "labels", "names"),
        [
            ("a.jpg 0\nb.jpg 1\n\n# no image\nc.jpg 1\n", [0, 1, 1], None),
            ("a.jpg\t0\nb.jpg\t1\nc.jpg\t1", [0, 1, 1], None),
            ("path,label\na.jpg,0\nb.jpg,1\nc.jpg,1\n", [0, 1, 1], None),
            ("1\ta.jpg\t0\n1\tb.jpg\t1\n0\tc.jpg\t1\n", [0, 1, 1], None),
            ("7\t0.000000\ta.jpg\n8\t1\tb.jpg\n9\t1\tc.jpg\n", [0, 1, 1], None),
            ("a.jpg zoe\nb.jpg alice\nc.jpg alice\n", [1, 0, 0], ["alice", "zoe"]),
            ("a.jpg 0\nb.jpg bob\nc.jpg bob\n", [0, 1, 1], ["0", "bob"]),
        ],
    )
    def test_lines(
        self, text: str, labels: list[int], names: list[str] | None, tmp_path: Path
    ) -> None:
        (tmp_path / "set.txt").write_text(text)
        for name, image in zip("abc", jpegs(3), strict=True):
            (tmp_path / f"{name}.jpg").write_bytes(image)
        faces = ListDataset(tmp_path / "set.txt")
        assert faces.labels.tolist() == labels
        assert faces.identities == names
        assert [faces.image_bytes(i) for i in range(3)] == jpegs(3)

    def test_names_with_blanks_and_absolute_paths(self, tmp_path: Path) -> None:
        (tmp_path / "a b.jpg").write_bytes(jpegs(1)[0])
        (tmp_path / "lists").mkdir()
        text = f"a b.jpg\t0\n{tmp_path}/a b.jpg\t1\n"
        (tmp_path / "lists" / "set.lst").write_text(text)
        faces = ListDataset(tmp_path / "lists", images=tmp_path)
        assert faces.image_bytes(0) == faces.image_bytes(1) == jpegs(1)[0]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a.jpg\n", "line 1 is not 'path label'"),
            ("a.jpg 0\nb.jpg\n", "line 2 is not"),
            ("", "lists no images"),
            ("a.jpg -1\n", "label -1 of image 0 is outside"),
            ("a.jpg 0\nb.jpg 2\n", r"no image has label 1 \(1 of 3 .*label_gaps=close"),
        ],
    )
    def test_faults(self, text: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "set.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            ListDataset(tmp_path / "set.txt")

    def test_files_that_are_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(MissingInputError, match="no list .*data.root must name a file"):
            ListDataset(tmp_path / "absent.txt")
        (tmp_path / "set.txt").write_text("a.jpg 0\nb.jpg 1\n")
        with pytest.raises(InputError, match=r"none of its first 2 images is below .*'a.jpg'"):
            ListDataset(tmp_path / "set.txt")
        (tmp_path / "b.jpg").write_bytes(jpegs(1)[0])
        with pytest.raises(InputError, match=r"a.jpg: cannot be read \(No such file"):
            ListDataset(tmp_path / "set.txt")[0]
        (tmp_path / "other.txt").write_text("a.jpg 0\n")
        with pytest.raises(InputError, match=r"holds other.txt, set.txt; name one of them"):
            ListDataset(tmp_path)


class TestFaults:
    """Of the other formats."""

    def test_lmdb(self, tmp_path: Path) -> None:
        lmdb = pytest.importorskip("lmdb")
        with pytest.raises(MissingInputError, match="data.mdb; data.root must name"):
            LMDBDataset(tmp_path)
        for name, entries, message in [
            ("empty", {}, "num-samples is None among 0 keys"),
            ("word", {b"num-samples": b"1", b"label-000000001": b"x"}, "is b'x', no class number"),
            ("short", {b"num-samples": b"2", b"label-000000001": b"0"}, "label-000000002 is None"),
        ]:
            with lmdb.open(str(tmp_path / name)) as environment, environment.begin(write=True) as t:
                for key, value in entries.items():
                    t.put(key, value)
            with pytest.raises(InputError, match=message):
                LMDBDataset(tmp_path / name)
        (tmp_path / "damaged").mkdir()
        (tmp_path / "damaged" / "data.mdb").write_bytes(b"no database" * 1000)
        with pytest.raises(InputError, match="is not an LMDB database"):
            LMDBDataset(tmp_path / "damaged")

    def test_lmdb_of_others(self, tmp_path: Path) -> None:
        """Other keys, numbers from 0, labels in a text file."""
        lmdb = pytest.importorskip("lmdb")
        with lmdb.open(str(tmp_path / "db")) as environment, environment.begin(write=True) as t:
            for number, label in enumerate((1, 0, 1)):
                t.put(b"img_%03d" % number, b"image %d" % number)
                t.put(b"lab_%03d" % number, b"%d" % label)
        keys = {"image_key": "img_{:03d}", "label_key": "lab_{:03d}", "first": 0}
        faces = LMDBDataset(tmp_path / "db", **keys)
        assert faces.labels.tolist() == [1, 0, 1]
        assert faces.image_bytes(2) == b"image 2"
        assert faces.describe(2).startswith("img_002 of ")
        (tmp_path / "labels.txt").write_text("img_002 ann\nimg_000 bo\n")
        faces = LMDBDataset(tmp_path / "db", labels=tmp_path / "labels.txt")
        assert [faces.image_bytes(index) for index in range(2)] == [b"image 2", b"image 0"]
        assert (faces.labels.tolist(), faces.identities) == ([0, 1], ["ann", "bo"])
        (tmp_path / "labels.txt").write_text("img_2 ann\n")
        with pytest.raises(
            InputError, match="first key 'img_2' is not in .*db, which has img_000,"
        ):
            LMDBDataset(tmp_path / "db", labels=tmp_path / "labels.txt")
        with pytest.raises(InputError, match=r"among 6 keys \(img_000, .*data.dataset.image_key"):
            LMDBDataset(tmp_path / "db")
        with pytest.raises(InputError, match="image_key=img has no place for the number"):
            LMDBDataset(tmp_path / "db", image_key="img")
        with pytest.raises(MissingInputError, match="no file .*none.txt; data.dataset.labels"):
            LMDBDataset(tmp_path / "db", labels=tmp_path / "none.txt")

    @pytest.mark.parametrize("pattern", ["image-{:09d}", "{}.jpg"])
    def test_lmdb_with_a_gap(self, pattern: str, tmp_path: Path) -> None:
        """Without num-samples nothing says how many images there are."""
        lmdb = pytest.importorskip("lmdb")
        with lmdb.open(str(tmp_path / "db")) as environment, environment.begin(write=True) as t:
            for number in (*range(1, 5), *range(6, 21)):
                t.put(pattern.format(number).encode(), jpegs(1)[0])
                t.put(b"label-%09d" % number, b"%d" % (number % 2))
        with lmdb.open(str(tmp_path / "zero")) as environment, environment.begin(write=True) as t:
            for number in range(20):
                t.put(pattern.format(number).encode(), jpegs(1)[0])
                t.put(b"label-%09d" % number, b"0")
        with pytest.raises(InputError, match="before the first number; set data.dataset.first=0"):
            LMDBDataset(tmp_path / "zero", image_key=pattern)
        missing = pattern.format(5)
        with pytest.raises(InputError, match=f"{missing} is missing among 19 images"):
            LMDBDataset(tmp_path / "db", image_key=pattern)

    def test_links_in_a_tar(self, tmp_path: Path) -> None:
        """tar writes the second name of a file as a link to the first."""
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for number, name in enumerate(("ann/1.jpg", "bo/1.jpg")):
                info = tarfile.TarInfo(name)
                info.size = len(jpegs(2)[number])
                archive.addfile(info, io.BytesIO(jpegs(2)[number]))
            info = tarfile.TarInfo("bo/2.jpg")
            info.type, info.linkname = tarfile.LNKTYPE, "ann/1.jpg"
            archive.addfile(info)
        faces = ShardDataset(tmp_path)
        assert [faces.image_bytes(i) for i in range(3)] == [*jpegs(2), jpegs(1)[0]]
        assert faces.labels.tolist() == [0, 1, 1]
        with tarfile.open(tmp_path / "a.tar", "a") as archive:
            info = tarfile.TarInfo("bo/3.jpg")
            info.type, info.linkname = tarfile.SYMTYPE, "../ann/1.jpg"
            archive.addfile(info)
        with pytest.raises(InputError, match=r"tar: bo/3.jpg is a link to ../ann/1.jpg, not a f"):
            ShardDataset(tmp_path)

    def test_hidden_links_in_a_tar_are_no_data(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            for name in ("ann/1.jpg", "bo/1.jpg"):
                info = tarfile.TarInfo(name)
                info.size = len(jpegs(1)[0])
                archive.addfile(info, io.BytesIO(jpegs(1)[0]))
            info = tarfile.TarInfo("__MACOSX/._1.jpg")
            info.type, info.linkname = tarfile.SYMTYPE, "x"
            archive.addfile(info)
        assert len(ShardDataset(tmp_path)) == 2

    def test_folders_further_down(self, tmp_path: Path) -> None:
        for name in ("train/imgs/ann/1.jpg", "train/imgs/bo/1.jpg", "test/imgs/cy/1.jpg", "x.txt"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        with pytest.raises(InputError, match="1 folders down, but 3, in .*dataset.depth=3"):
            FolderDataset(tmp_path)
        faces = FolderDataset(tmp_path, depth=3)
        assert faces.identities == ["cy", "ann", "bo"]
        assert faces.files[0] == "test/imgs/cy/1.jpg"
        assert faces.ignored == ["x.txt"]
        (tmp_path / "test" / "imgs" / "bo").mkdir()
        (tmp_path / "test" / "imgs" / "bo" / "2.jpg").write_bytes(b"")
        with pytest.raises(InputError, match="test/imgs/bo and train/imgs/bo have one name"):
            FolderDataset(tmp_path, depth=3)
        with pytest.raises(InputError, match="depth must be at least 1, got 0"):
            FolderDataset(tmp_path, depth=0)

    def test_shards(self, tmp_path: Path) -> None:
        with pytest.raises(MissingInputError, match="no .tar or .zip file"):
            ShardDataset(tmp_path)
        (tmp_path / "a.tar").write_bytes(b"no archive" * 200)
        with pytest.raises(InputError, match="a.tar: cannot be read as an archive"):
            ShardDataset(tmp_path)
        with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("x.jpg"))
        with pytest.raises(InputError, match="a compressed .tar must be made a plain one"):
            ShardDataset(tmp_path)
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            archive.addfile(tarfile.TarInfo("x.jpg"))
        with pytest.raises(InputError, match=r"x.jpg has no label; expected x.cls"):
            ShardDataset(tmp_path)
        (tmp_path / "a.tar").unlink()
        shards = write_tar(tmp_path / "cut")
        whole = (shards / "00001.tar").read_bytes()
        (shards / "00001.tar").write_bytes(whole[:3000])
        with pytest.raises(InputError, match=r"00001.tar: cannot be read|ends inside it"):
            faces = ShardDataset(shards)
            faces.__getitems__(list(range(len(faces))))

    def test_a_damaged_header_is_not_the_end(self, tmp_path: Path) -> None:
        """tarfile takes it for the end and says nothing."""
        shards = write_tar(tmp_path / "set")
        content = bytearray((shards / "00000.tar").read_bytes())
        content[content.index(b"000004.jpg") + 100] ^= 0xFF
        (shards / "00000.tar").write_bytes(content)
        with pytest.raises(InputError, match="00000.tar: cannot be read .*no file header at byte"):
            ShardDataset(shards)

    def test_names_with_dots_and_two_labels(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("ann/img.v2.jpg", jpegs(1)[0])
            archive.writestr("bo/1.jpg", jpegs(2)[1])
        faces = ShardDataset(tmp_path)
        assert [faces.identity(int(label)) for label in faces.labels] == ["ann", "bo"]
        with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
            archive.writestr("bo/1.cls", "3")
            archive.writestr("bo/1.json", '{"label": 4}')
        with pytest.raises(InputError, match="two labels for bo/1, 3 and 4"):
            ShardDataset(tmp_path)

    def test_splits_are_not_mixed(self, tmp_path: Path) -> None:
        root = write_parquet(tmp_path / "set")
        (root / "test-00000-of-00001.parquet").write_bytes(
            (root / "train-00000-of-00001.parquet").read_bytes()
        )
        with pytest.raises(InputError, match="the splits test, train; choose one: data.dataset"):
            ParquetDataset(root)
        assert len(ParquetDataset(root, split="train")) == 10
        with pytest.raises(MissingInputError, match="check data.root and the split"):
            ParquetDataset(root, split="validation")

    @pytest.mark.parametrize("label", ["99999999999999999999", "2147483648"])
    def test_labels_no_memory_could_hold_are_names(self, label: str, tmp_path: Path) -> None:
        (tmp_path / "set.txt").write_text(f"a.jpg 0\nb.jpg {label}\n")
        (tmp_path / "a.jpg").write_bytes(jpegs(1)[0])
        faces = ListDataset(tmp_path / "set.txt")
        assert faces.labels.tolist() == [0, 1]
        assert faces.identities == ["0", label]

    def test_sparse_labels_need_no_table(self, tmp_path: Path) -> None:
        (tmp_path / "set.txt").write_text("a.jpg 5\nb.jpg 2147483647\n")
        (tmp_path / "a.jpg").write_bytes(jpegs(1)[0])
        assert ListDataset(tmp_path / "set.txt", label_gaps="close").labels.tolist() == [0, 1]
        with pytest.raises(InputError, match="no image has label 0 .2147483646 of 2147483648"):
            close_gaps(np.array([5, 2147483647]), 2147483648, None, "it", refuse=True)

    def test_parquet(self, tmp_path: Path) -> None:
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        with pytest.raises(MissingInputError, match="no .parquet file"):
            ParquetDataset(tmp_path)
        path = tmp_path / "a.parquet"
        path.write_bytes(b"PAR1 no parquet PAR1")
        with pytest.raises(InputError, match="not a Parquet file"):
            ParquetDataset(path)
        parquet.write_table(arrow.table({"photo": [b"x"], "label": [0]}), path)
        with pytest.raises(InputError, match="no column image or img or jpg, it has photo, label"):
            ParquetDataset(path)
        parquet.write_table(arrow.table({"image": [b"x", None], "label": [0, 0]}), path)
        with pytest.raises(InputError, match=r"row 1 of .*: no image bytes in this row"):
            ParquetDataset(path)[1]

    def test_what_is_not_there_or_unknown(self, tmp_path: Path) -> None:
        with pytest.raises(MissingInputError, match="no file or folder"):
            open_faces(tmp_path / "absent")
        (tmp_path / "a.xyz").write_text("")
        with pytest.raises(InputError, match="not a known kind of data; known endings: .rec"):
            open_faces(tmp_path / "a.xyz")
        with pytest.raises(InputError, match="unknown format 'foldr'. Did you mean 'folder'"):
            open_faces(tmp_path, "foldr")

    def test_a_package_that_is_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
        (tmp_path / "data.mdb").write_text("")
        with pytest.raises(InputError, match=r"needs the package lmdb.*marginface\[lmdb\]"):
            LMDBDataset(tmp_path)
