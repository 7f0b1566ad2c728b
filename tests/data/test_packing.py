"""Packing is byte-exact, whole or not at all, and continues where it was stopped."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.commands import marginface
from helpers.paths import ROOT
from helpers.pictures import jpegs, make_folder, picture
from marginface.data import FaceDataset, FolderDataset, RecordIODataset, open_faces
from marginface.data.formats import writer_class
from marginface.data.formats.recordio.writer import cut_to_whole_images
from marginface.data.images import encode_jpeg
from marginface.data.packing import pack
from marginface.utils.errors import InputError

FORMATS = ["recordio", "folder", "list", "lmdb"]


@pytest.fixture
def source(tmp_path: Path) -> FolderDataset:
    return FolderDataset(make_folder(tmp_path / "source", [3, 1, 4, 2]))


def contents(faces: FaceDataset) -> list[tuple[str, bytes]]:
    return sorted(
        (faces.identity(int(faces.labels[i])), faces.image_bytes(i)) for i in range(len(faces))
    )


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("via", FORMATS)
def test_between_any_two(format: str, via: str, source: FolderDataset, tmp_path: Path) -> None:
    pack(source, tmp_path / "a", via)
    pack(open_faces(tmp_path / "a"), tmp_path / "b", format)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "source"]
    faces = open_faces(tmp_path / "b")
    assert [b for _, b in contents(faces)] == [b for _, b in contents(source)]
    assert faces.labels.tolist() == source.labels.tolist()


def test_names_survive_where_the_format_has_them(source: FolderDataset, tmp_path: Path) -> None:
    pack(source, tmp_path / "lmdb", "lmdb")
    pack(open_faces(tmp_path / "lmdb"), tmp_path / "folder", "folder")
    assert contents(open_faces(tmp_path / "folder")) == contents(source)
    pack(source, tmp_path / "again", "folder")
    assert FolderDataset(tmp_path / "again").files == source.files


def test_no_two_images_get_one_name(tmp_path: Path) -> None:
    """1.png is a JPEG and image 2, so its name would be 1.jpg or 1-2.jpg, which are taken."""
    for number, name in enumerate(("x/1-2.jpg", "x/1.jpg", "x/1.png", "y/z.jpg")):
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes(jpegs(4)[number])
    source = FolderDataset(tmp_path / "source")
    pack(source, tmp_path / "folder", "folder")
    assert contents(open_faces(tmp_path / "folder")) == contents(source)


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


class Stop(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("after", [0, 1, 4, 9])
def test_going_on(
    format: str, after: int, source: FolderDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marginface.data.formats.lmdb._COMMIT_EVERY", 3)
    pack(source, tmp_path / "whole", format)
    original = source.image_bytes
    read: list[int] = []

    def stopping(index: int) -> bytes:
        if len(read) == after:
            raise Stop
        read.append(index)
        return original(index)

    source.image_bytes = stopping  # type: ignore[method-assign]
    with pytest.raises(Stop):
        pack(source, tmp_path / "target", format)
    assert not (tmp_path / "target").exists()
    source.image_bytes = original  # type: ignore[method-assign]
    pack(source, tmp_path / "target", format)
    if format == "lmdb":  # page numbers differ, what it holds does not
        assert contents(open_faces(tmp_path / "target")) == contents(source)
    else:
        assert files(tmp_path / "target") == files(tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "target", "whole"]


@pytest.mark.parametrize("cut", range(0, 4000, 331))
@pytest.mark.parametrize("index_ahead", [True, False])
def test_record_files_cut_anywhere(
    cut: int, index_ahead: bool, source: FolderDataset, tmp_path: Path
) -> None:
    """What a kill leaves: the two files end at different places."""
    pack(source, tmp_path / "whole", "recordio")
    records, index = (tmp_path / "whole" / name for name in ("train.rec", "train.idx"))
    whole_records, whole_index = records.read_bytes(), index.read_bytes()
    share = cut / 4000
    records.write_bytes(whole_records[: int(len(whole_records) * share)])
    if not index_ahead:
        index.write_bytes(whole_index[: int(len(whole_index) * share / 2)])
    done = cut_to_whole_images(records, index)
    assert 0 <= done <= 10
    assert whole_records.startswith(records.read_bytes())
    assert whole_index.startswith(index.read_bytes())
    if done:
        kept = RecordIODataset(tmp_path / "whole", label_gaps="keep")
        assert len(kept) == done


KILLED = """
import sys, time
from marginface.data import FolderDataset
from marginface.data.images import encode_jpeg
from marginface.data.formats import lmdb, writer_class
from marginface.data.packing import pack
def slowly(done, total):
    print(done, flush=True)
writer = writer_class(sys.argv[3])
write = writer.write
def slow(self, number, image):
    write(self, number, image)
    print(number, flush=True)
    time.sleep(0.05)
writer.write = slow
lmdb._COMMIT_EVERY = 2
pack(FolderDataset(sys.argv[1]), sys.argv[2], sys.argv[3])
"""


@pytest.mark.parametrize("format", FORMATS)
def test_sigkill(format: str, source: FolderDataset, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", KILLED, str(source.root), str(tmp_path / "target"), format]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "5":
            break
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert not (tmp_path / "target").exists()
    assert (tmp_path / ".target.partial").is_dir()
    pack(source, tmp_path / "target", format)
    assert [b for _, b in contents(open_faces(tmp_path / "target"))] == [
        b for _, b in contents(source)
    ]
    assert not (tmp_path / ".target.partial").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_no_space_left(
    format: str, source: FolderDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_class(format)
    write = writer.write

    def full(self: object, number: int, image: bytes) -> None:
        if number == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, number, image)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(writer, "write", full)
        with pytest.raises(InputError, match="stopped: No space left on device. .*to continue"):
            pack(source, tmp_path / "target", format)
    assert not (tmp_path / "target").exists()
    pack(source, tmp_path / "target", format)
    assert len(open_faces(tmp_path / "target")) == 10


@pytest.mark.parametrize("format", ["recordio", "lmdb"])
def test_a_file_that_may_not_grow(format: str, source: FolderDataset, tmp_path: Path) -> None:
    """The same from the kernel: a process whose files may hold 20 kB."""
    script = (
        "import resource, signal, sys\n"
        "from marginface.cli.errors import clear_errors\n"
        "from marginface.data.formats import open_faces\n"
        "from marginface.data.packing import pack\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "with clear_errors():\n"
        "    pack(open_faces(sys.argv[1]), sys.argv[2], sys.argv[3])\n"
    )
    target = tmp_path / "target"
    run = subprocess.run(
        [sys.executable, "-c", script, str(source.root), str(target), format],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 2
    assert "error: packing into" in run.stderr
    assert "File too large" in run.stderr or "LMDB: " in run.stderr
    assert "Traceback" not in run.stderr
    assert not target.exists()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


class TestFaulty:
    """Images nobody can decode."""

    @pytest.fixture
    def damaged(self, source: FolderDataset) -> FolderDataset:
        path = source.root / source.files[1]
        path.write_bytes(path.read_bytes()[:500])
        (source.root / source.files[4]).write_bytes(b"")
        return source

    def test_stop_is_the_default(self, damaged: FolderDataset, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"p0/1.jpg: .*--faulty skip"):
            pack(damaged, tmp_path / "target", "recordio")
        assert not (tmp_path / "target").exists()

    @pytest.mark.parametrize("format", FORMATS)
    def test_skip_counts(self, format: str, damaged: FolderDataset, tmp_path: Path) -> None:
        assert pack(damaged, tmp_path / "target", format, faulty="skip") == 2
        good = [b for i, (_, b) in enumerate(contents(damaged)) if b and len(b) != 500]
        assert [b for _, b in contents(open_faces(tmp_path / "target"))] == good

    def test_going_on_with_skips(self, damaged: FolderDataset, tmp_path: Path) -> None:
        pack(damaged, tmp_path / "whole", "recordio", faulty="skip")
        original, calls = damaged.image_bytes, iter(range(100))

        def stopping(index: int) -> bytes:
            if next(calls) == 6:
                raise Stop
            return original(index)

        damaged.image_bytes = stopping  # type: ignore[method-assign]
        with pytest.raises(Stop):
            pack(damaged, tmp_path / "target", "recordio", faulty="skip")
        damaged.image_bytes = original  # type: ignore[method-assign]
        assert pack(damaged, tmp_path / "target", "recordio", faulty="skip") == 2
        assert files(tmp_path / "target") == files(tmp_path / "whole")

    def test_copy_takes_what_is_there(self, source: FolderDataset, tmp_path: Path) -> None:
        (source.root / source.files[1]).write_bytes(b"opaque")
        pack(source, tmp_path / "target", "recordio", faulty="copy")
        assert RecordIODataset(tmp_path / "target").image_bytes(1) == b"opaque"

    def test_nobody_disappears(self, source: FolderDataset, tmp_path: Path) -> None:
        (source.root / "p1" / "0.jpg").write_bytes(b"no image")
        for format in FORMATS:
            with pytest.raises(
                InputError, match=r"p1 .*has no image that can be read|label 2 after"
            ):
                pack(source, tmp_path / format, format, faulty="skip")


@pytest.mark.parametrize("format", FORMATS)
def test_a_source_that_changed_meanwhile(
    format: str, source: FolderDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old and new images are never mixed."""
    monkeypatch.setattr("marginface.data.formats.lmdb._COMMIT_EVERY", 2)
    original = source.image_bytes

    def stopping(index: int) -> bytes:
        if index == 6:
            raise Stop
        return original(index)

    source.image_bytes = stopping  # type: ignore[method-assign]
    with pytest.raises(Stop):
        pack(source, tmp_path / "target", format)
    source.image_bytes = original  # type: ignore[method-assign]
    (source.root / source.files[1]).write_bytes(encode_jpeg(picture(500)))
    if format in ("folder", "list"):
        pack(source, tmp_path / "target", format)
        assert contents(open_faces(tmp_path / "target"))[1][1] == encode_jpeg(picture(500))
    else:
        with pytest.raises(InputError, match=r"differs from .*p0/1.jpg.*\.partial"):
            pack(source, tmp_path / "target", format)


def test_two_at_once(source: FolderDataset, tmp_path: Path) -> None:
    original = source.image_bytes

    def meanwhile(index: int) -> bytes:
        source.image_bytes = original  # type: ignore[method-assign]
        with pytest.raises(InputError, match="another process is writing"):
            pack(source, tmp_path / "target", "recordio")
        return original(index)

    source.image_bytes = meanwhile  # type: ignore[method-assign]
    pack(source, tmp_path / "target", "recordio")
    assert len(open_faces(tmp_path / "target")) == 10


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "#comment", ""])
def test_identities_that_are_no_folders(name: str, source: FolderDataset, tmp_path: Path) -> None:
    assert source.identities is not None
    source.identities[2] = name
    for format in ("folder", "list"):
        with pytest.raises(InputError, match="cannot be the name of a folder"):
            pack(source, tmp_path / format, format)
    pack(source, tmp_path / "lmdb", "lmdb")
    assert open_faces(tmp_path / "lmdb").identity(2) == name


def test_the_property_file_has_the_images_size(tmp_path: Path) -> None:
    small = FolderDataset(make_folder(tmp_path / "source", [2, 1], 64), image_size=64)
    pack(small, tmp_path / "target", "recordio")
    assert (tmp_path / "target" / "property").read_text() == "2,64,64\n"


def test_refusals(source: FolderDataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown format to write 'recordo'. Did you mean"):
        pack(source, tmp_path / "x", "recordo")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("keep")
    with pytest.raises(InputError, match="taken exists; choose another name"):
        pack(source, tmp_path / "taken", "recordio")
    (tmp_path / "empty").mkdir()
    pack(source, tmp_path / "empty", "recordio")
    (tmp_path / ".other.partial").mkdir()
    (tmp_path / ".other.partial" / "pack.json").write_text('{"format": "folder", "source": {}}')
    with pytest.raises(InputError, match="was begun from other data .*remove it to begin"):
        pack(source, tmp_path / "other", "recordio")


def test_the_command(source: FolderDataset, tmp_path: Path) -> None:
    run = marginface("pack", str(source.root), str(tmp_path / "out"))
    assert run.exit_code == 0, run.stderr
    assert "10 images of 4 identities written to" in run.stdout
    again = marginface("pack", str(source.root), str(tmp_path / "out"))
    assert again.exit_code == 2
    assert again.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in again.stderr


def test_the_bytes_mxnet_would_write(golden: Path, tmp_path: Path) -> None:
    """MXNet 1.9.1 read such files back equal; here against what its own packer wrote."""
    original = golden / "recordio" / "insightface"
    pack(open_faces(original), tmp_path / "packed", "recordio")
    for name in ("train.rec", "train.idx"):
        assert (tmp_path / "packed" / name).read_bytes() == (original / name).read_bytes()


@pytest.mark.parametrize("format", ["recordio", "list", "lmdb", "folder"])
def test_names_of_people_go_along(tmp_path: Path, format: str) -> None:
    """People's own numbers come back as they were, through every format."""
    for name in ("0007", "123456789012", "ann"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        (tmp_path / "faces" / name / "1.jpg").write_bytes(jpegs(1)[0])
    pack(open_faces(tmp_path / "faces"), tmp_path / "packed", format)
    packed = open_faces(tmp_path / "packed")
    assert packed.identities == ["0007", "123456789012", "ann"]
    pack(packed, tmp_path / "back", "folder")
    assert sorted(p.name for p in (tmp_path / "back").iterdir()) == packed.identities
    if format == "recordio":
        (tmp_path / "packed" / "identities.txt").write_text("ann\n")
        assert open_faces(tmp_path / "packed").identities is None
