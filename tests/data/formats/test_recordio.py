"""RecordIO: MXNet's own files, our writer, and every way a file can be wrong."""

import hashlib
import json
import multiprocessing
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from marginface.data import RecordIODataset, make_loader, write_recordio
from marginface.data.formats.recordio.format import MAGIC, read_index
from marginface.data.images import encode_jpeg
from marginface.utils.errors import InputError, MissingInputError

LAYOUTS = ["insightface", "insightface_label_array", "im2rec", "multipart"]


def jpegs(count: int, size: int = 112) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [encode_jpeg(rng.integers(0, 255, (size, size, 3), np.uint8)) for _ in range(count)]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_recordio(tmp_path, jpegs(7), [0, 0, 1, 2, 2, 2, 3])
    return tmp_path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reads_what_mxnet_wrote(golden: Path, layout: str) -> None:
    expected = json.loads((golden / "recordio" / layout / "expected.json").read_text())
    dataset = RecordIODataset(golden / "recordio" / layout)
    assert len(dataset) == expected["num_images"]
    assert dataset.num_classes == expected["num_classes"]
    found = [
        [
            int(dataset.keys[i]),
            int(dataset.labels[i]),
            hashlib.sha256(dataset.image_bytes(i)).hexdigest(),
        ]
        for i in range(len(dataset))
    ]
    assert found == expected["records"]


@pytest.mark.parametrize("layout", ["insightface", "insightface_label_array", "im2rec"])
def test_images_decode(golden: Path, layout: str) -> None:
    dataset = RecordIODataset(golden / "recordio" / layout)
    image, label, index = dataset[len(dataset) - 1]
    assert image.shape == (3, 112, 112)
    assert (label, index) == (dataset.labels[-1], len(dataset) - 1)


def test_our_writer_makes_mxnets_bytes(golden: Path, tmp_path: Path) -> None:
    source = golden / "recordio" / "insightface"
    dataset = RecordIODataset(source)
    images = [dataset.image_bytes(i) for i in range(len(dataset))]
    write_recordio(tmp_path, images, dataset.labels.tolist())
    assert (tmp_path / "train.idx").read_bytes() == (source / "train.idx").read_bytes()
    assert (tmp_path / "train.rec").read_bytes() == (source / "train.rec").read_bytes()


def test_round_trip(written: Path) -> None:
    dataset = RecordIODataset(written)
    assert [dataset.image_bytes(i) for i in range(7)] == jpegs(7)
    assert dataset.labels.tolist() == [0, 0, 1, 2, 2, 2, 3]
    assert dataset.num_classes == 4


@pytest.mark.parametrize(
    "body",
    [
        b"abcd" + MAGIC + b"efgh",
        MAGIC + b"x",
        b"abcd" + MAGIC + MAGIC + b"z",
        b"ab" + MAGIC + b"cd",
        MAGIC,
    ],
)
def test_the_magic_word_inside_an_image(tmp_path: Path, body: bytes) -> None:
    write_recordio(tmp_path, [body, b"other"], [0, 1])
    dataset = RecordIODataset(tmp_path)
    assert [dataset.image_bytes(i) for i in range(2)] == [body, b"other"]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers(written: Path, start: str) -> None:
    dataset = RecordIODataset(written)
    images, labels, indices = dataset.__getitems__(list(range(7)))
    with multiprocessing.get_context(start).Pool(2) as pool:
        theirs = pool.map(dataset.image_bytes, range(7))
    assert theirs == jpegs(7)
    (batch,) = make_loader(dataset, batch_size=7, num_workers=2)
    assert (batch[0] == images).all()
    assert batch[1].tolist() == labels.tolist()
    assert batch[2].tolist() == indices.tolist()


def test_a_pickled_dataset_is_small(tmp_path: Path) -> None:
    write_recordio(tmp_path, jpegs(50), list(range(50)))
    dataset = RecordIODataset(tmp_path)
    dataset.image_bytes(0)
    assert len(pickle.dumps(dataset)) < 10_000
    assert (tmp_path / "train.rec").stat().st_size > 100_000


class TestFaults:
    """Each one a sentence that names the file."""

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MissingInputError, match="no file .*train.rec; data.root must name"):
            RecordIODataset(tmp_path)

    def test_truncated(self, written: Path) -> None:
        rec = written / "train.rec"
        rec.write_bytes(rec.read_bytes()[:-200])
        with pytest.raises(InputError, match="truncated"):
            RecordIODataset(written)

    def test_cut_inside_the_last_image(self, tmp_path: Path) -> None:
        """Also when the cut leaves the header of the last record whole."""
        write_recordio(tmp_path, jpegs(2), [0, 1])
        rec, idx = tmp_path / "train.rec", tmp_path / "train.idx"
        lines = idx.read_text().splitlines()[:3]
        idx.write_text("\n".join(lines) + "\n")
        rec.write_bytes(rec.read_bytes()[: int(lines[2].split("\t")[1]) + 100])
        with pytest.raises(InputError, match="record 2 at byte .* the file ends before the record"):
            RecordIODataset(tmp_path)

    def test_index_beyond_the_file(self, written: Path) -> None:
        with (written / "train.idx").open("a") as file:
            file.write("99\t99999999\n")
        with pytest.raises(InputError, match="record 99 at byte 99999999, which is outside"):
            RecordIODataset(written)

    def test_index_of_another_file(self, written: Path) -> None:
        text = (written / "train.idx").read_text().replace("2\t", "2\t1", 1)
        (written / "train.idx").write_text(text)
        with pytest.raises(InputError, match="train.idx puts record 2"):
            RecordIODataset(written)

    def test_index_is_no_index(self, written: Path) -> None:
        (written / "train.idx").write_text("hello\n")
        with pytest.raises(InputError, match="expected lines 'key<TAB>offset'"):
            RecordIODataset(written)

    def test_label_outside_the_stated_range(self, written: Path) -> None:
        (written / "property").write_text("3,112,112\n")
        with pytest.raises(InputError, match=r"label 3 of image 6 is outside \[0, 3\)"):
            RecordIODataset(written)

    @pytest.mark.parametrize("label", [-1.0, 0.5, float("nan"), 2.0**24])
    def test_label_that_is_no_class_number(self, written: Path, label: float) -> None:
        rec = written / "train.rec"
        content = bytearray(rec.read_bytes())
        offset = int((written / "train.idx").read_text().splitlines()[1].split("\t")[1])
        content[offset + 12 : offset + 16] = struct.pack("<f", label)
        rec.write_bytes(content)
        with pytest.raises(InputError, match="record 1 of .*label .* is not a class number"):
            RecordIODataset(written)

    def test_damaged_image(self, written: Path) -> None:
        write_recordio(written / "bad", [b"no jpeg", jpegs(1)[0]], [0, 1])
        with pytest.raises(InputError, match="record 1 of .*not a decodable image"):
            RecordIODataset(written / "bad")[0]

    def test_only_empty_records(self, tmp_path: Path) -> None:
        write_recordio(tmp_path, [b"", b""], [0, 1])
        with pytest.raises(InputError, match="holds no images"):
            RecordIODataset(tmp_path)

    def test_writer_refuses_to_overwrite_and_to_reorder(self, written: Path) -> None:
        with pytest.raises(InputError, match="exists; choose another folder"):
            write_recordio(written, jpegs(1), [0])
        with pytest.raises(InputError, match="image 2 has label 0 after label 1"):
            write_recordio(written / "new", jpegs(3), [0, 1, 0])
        assert not list((written / "new").glob("*")), "a failed write leaves nothing behind"


def test_counts_beyond_float32_do_not_matter(written: Path) -> None:
    """Record 0 of a set with more than 2^24 images holds a rounded count; it is not needed."""
    rec = written / "train.rec"
    content = bytearray(rec.read_bytes())
    content[32:40] = struct.pack("<2f", 17_091_658.0, 17_451_890.0)
    rec.write_bytes(content)
    assert len(RecordIODataset(written)) == 7


class TestLabelsAboveFloat32:
    """train.lst has them exactly; a record's float32 is checked against it."""

    LABELS = (2**24 - 1, 2**24, 2**24 + 1, 2**24 + 2)

    @pytest.fixture
    def large(self, tmp_path: Path) -> Path:
        write_recordio(tmp_path, jpegs(4), [0, 1, 2, 3])
        content = bytearray((tmp_path / "train.rec").read_bytes())
        lines = (tmp_path / "train.idx").read_text().splitlines()
        for line, label in zip(lines[1:5], self.LABELS, strict=True):
            offset = int(line.split("\t")[1])
            content[offset + 12 : offset + 16] = struct.pack("<f", label)
        (tmp_path / "train.rec").write_bytes(content)
        (tmp_path / "property").unlink()
        return tmp_path

    def test_without_a_list(self, large: Path) -> None:
        with pytest.raises(InputError, match="record 2 of .*exact labels above it are read from"):
            RecordIODataset(large, label_gaps="keep")

    @pytest.mark.parametrize("kind", ["im2rec", "face2rec"])
    def test_with_one(self, large: Path, kind: str) -> None:
        lines = [
            f"{key}\t{label}\ta.jpg" if kind == "im2rec" else f"1\ta.jpg\t{label}"
            for key, label in enumerate(self.LABELS, start=1)
        ]
        (large / "train.lst").write_text("\n".join(lines) + "\n")
        faces = RecordIODataset(large, label_gaps="keep")
        assert faces.labels.tolist() == list(self.LABELS)
        assert faces.num_classes == 2**24 + 3

    def test_with_another_set_s(self, large: Path) -> None:
        (large / "train.lst").write_text("".join(f"{k}\t{k}\ta.jpg\n" for k in range(1, 5)))
        with pytest.raises(InputError, match="is not the record's 16777215; the list belongs to"):
            RecordIODataset(large, label_gaps="keep")

    def test_with_a_line_that_is_none(self, large: Path) -> None:
        (large / "train.lst").write_text("hello\n")
        with pytest.raises(InputError, match="line 1 is neither"):
            RecordIODataset(large, label_gaps="keep")


class TestWhereTheFilesAre:
    """Without an index, under another name, named itself."""

    def test_without_an_index(self, golden: Path, tmp_path: Path) -> None:
        for layout in LAYOUTS:
            source = golden / "recordio" / layout
            (tmp_path / "train.rec").write_bytes((source / "train.rec").read_bytes())
            found, expected = RecordIODataset(tmp_path), RecordIODataset(source)
            assert found.offsets.tolist() == expected.offsets.tolist()
            assert found.labels.tolist() == expected.labels.tolist()

    def test_without_an_index_and_damaged(self, written: Path) -> None:
        (written / "train.idx").unlink()
        rec = written / "train.rec"
        whole = rec.read_bytes()
        rec.write_bytes(whole[:-2000])
        with pytest.raises(InputError, match="the record at byte .* is truncated"):
            RecordIODataset(written)
        rec.write_bytes(whole[:100] + b"xxxx" + whole[100:])
        with pytest.raises(InputError, match="no record at byte .*damaged"):
            RecordIODataset(written)

    def test_keys_without_an_index_are_the_headers(self, written: Path) -> None:
        """im2rec shuffles: the third record need not be number 2."""
        rec = written / "train.rec"
        content = bytearray(rec.read_bytes())
        offsets = [int(x.split("\t")[1]) for x in (written / "train.idx").read_text().splitlines()]
        content[offsets[2] + 16 : offsets[2] + 24] = struct.pack("<Q", 77)
        rec.write_bytes(content)
        (written / "train.idx").unlink()
        assert RecordIODataset(written).keys.tolist() == [1, 77, 3, 4, 5, 6, 7]

    def test_parts_out_of_place(self, written: Path) -> None:
        rec = written / "train.rec"
        content = bytearray(rec.read_bytes())
        offset = int((written / "train.idx").read_text().splitlines()[2].split("\t")[1])
        content[offset + 7] |= 0x20  # the first part of a record whose other parts are missing
        rec.write_bytes(content)
        with pytest.raises(InputError, match="part 0 of a record at byte .* is out of place"):
            RecordIODataset(written).image_bytes(1)
        (written / "train.idx").unlink()
        with pytest.raises(InputError, match="train.rec: part 0 .* is out of place"):
            RecordIODataset(written)

    def test_an_index_that_ends_early(
        self, written: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        RecordIODataset(written)
        assert capsys.readouterr().err == ""
        lines = (written / "train.idx").read_text().splitlines()[:4]
        (written / "train.idx").write_text("\n".join(lines) + "\n")
        assert len(RecordIODataset(written, label_gaps="keep")) == 3
        assert "bytes before the file does; the records there are not used" in (
            capsys.readouterr().err
        )

    def test_another_name(self, written: Path) -> None:
        for ending in ("rec", "idx"):
            (written / f"train.{ending}").rename(written / f"faces.{ending}")
        assert len(RecordIODataset(written)) == 7
        assert len(RecordIODataset(written / "faces.rec")) == 7
        (written / "more.rec").write_bytes(b"")
        with pytest.raises(InputError, match="holds faces.rec, more.rec; name one"):
            RecordIODataset(written)
        with pytest.raises(InputError, match="more.rec is empty"):
            RecordIODataset(written / "more.rec")

    @pytest.mark.parametrize("text", ["1\t0", "1\t0\n\n", "1\t0\r\n", "1\t0\n"])
    def test_how_the_index_may_end(self, written: Path, text: str) -> None:
        (written / "train.idx").write_bytes(text.encode())
        keys, offsets = read_index(written / "train.idx")
        assert (keys.tolist(), offsets.tolist()) == ([1], [0])

    @pytest.mark.parametrize("text", ["1\t0\t2\n3\n", "1\n", "\t\n", "-1\t0\n", "1\tx\n"])
    def test_what_is_no_index(self, written: Path, text: str) -> None:
        (written / "train.idx").write_text(text)
        with pytest.raises(InputError, match="expected lines 'key<TAB>offset'"):
            RecordIODataset(written)


@pytest.mark.long
def test_40_million_records(tmp_path: Path) -> None:
    """In a process of its own; shown to take 6.5 s and 1.9 GB, the imports' 0.8 GB included."""
    # Not ru_maxrss, which begins with what the tests' process had before.
    script = """
import sys, time
from pathlib import Path
from marginface.data import RecordIODataset
start = time.perf_counter()
faces = RecordIODataset(sys.argv[1])
seconds = time.perf_counter() - start
peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(len(faces), faces.num_classes, seconds, int(peak) / 1e6)
"""
    step = 1_000_000
    words = np.zeros((step, 11), np.uint32)
    words[:, 0], words[:, 1] = 0xCED7230A, 36
    with (tmp_path / "train.rec").open("wb") as rec, (tmp_path / "train.idx").open("w") as idx:
        for start in range(0, 40 * step, step):
            numbers = np.arange(start, start + step)
            words[:, 3] = (numbers // 20).astype(np.float32).view(np.uint32)
            rec.write(words.tobytes())
            idx.writelines(f"{key}\t{44 * key}\n" for key in numbers.tolist())
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    images, identities, seconds, gigabytes = map(float, done.stdout.split())
    assert (images, identities) == (40e6, 2e6)
    assert seconds < 30, "shown: 6.5"
    assert gigabytes < 2.0
