"""RecordIO: MXNet's own files, our writer, and every way a file can be wrong."""

import hashlib
import json
import multiprocessing
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from marginface.data import RecordIODataset, make_loader, write_recordio
from marginface.data.images import encode_jpeg
from marginface.data.records import MAGIC
from marginface.errors import InputError, MissingInputError

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
        with pytest.raises(InputError, match="record 1 of .*label .* is no class number"):
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
