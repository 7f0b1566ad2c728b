"""Whatever bytes lie in a file: our own error, no code run, memory bounded by the file's size."""

import contextlib
import pickle
import pickletools
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from helpers.pictures import jpegs
from marginface.data import RecordIODataset, load_pairs, write_recordio
from marginface.data.formats.recordio.format import MAGIC
from marginface.data.images import ANY_IMAGE
from marginface.data.pairs.files import read_pair_file
from marginface.data.pairs.unpickler import load_plain
from marginface.utils.errors import InputError

FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def record_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    root = tmp_path_factory.mktemp("records")
    write_recordio(root, [*jpegs(3, 32), b"ab" + MAGIC * 3 + b"cd"], [0, 0, 1, 2])
    return (root / "train.rec").read_bytes(), (root / "train.idx").read_bytes()


edits = st.lists(
    st.tuples(st.floats(0, 0.999), st.one_of(st.binary(max_size=8), st.just(b"\xff" * 4))),
    max_size=4,
)


def edited(content: bytes, changes: list[tuple[float, bytes]], length: float) -> bytes:
    changed = bytearray(content)
    for place, new in changes:
        at = int(place * len(changed))
        changed[at : at + len(new)] = new
    return bytes(changed[: int(length * len(changed))])


def open_and_read(root: Path) -> None:
    """All one can do with a set; InputError is fine."""
    try:
        faces = RecordIODataset(root, image_size=32, label_gaps="keep")
    except InputError:
        return
    for index in range(len(faces)):
        try:
            faces.image_bytes(index)
            faces.pixels(index)
        except InputError:
            pass


@FUZZ
@given(record_edits=edits, index_edits=edits, length=st.floats(0.2, 1), with_index=st.booleans())
def test_records(
    record_files: tuple[bytes, bytes],
    tmp_path: Path,
    record_edits: list[tuple[float, bytes]],
    index_edits: list[tuple[float, bytes]],
    length: float,
    with_index: bool,
) -> None:
    records, index = record_files
    (tmp_path / "train.rec").write_bytes(edited(records, record_edits, length))
    (tmp_path / "train.idx").unlink(missing_ok=True)
    if with_index:
        (tmp_path / "train.idx").write_bytes(edited(index, index_edits, 1))
    open_and_read(tmp_path)


@FUZZ
@given(
    records=st.binary(max_size=300),
    index=st.one_of(st.binary(max_size=60), st.from_regex(rb"(\d{0,20}\t\d{0,20}\n){0,4}\d?")),
    property=st.binary(max_size=20),
)
@example(records=MAGIC + struct.pack("<I", 24) + b"\xff" * 24, index=b"0\t0\n", property=b"1")
@example(records=MAGIC + struct.pack("<I", 0), index=b"0\t99999999999999999999999\n", property=b"")
def test_anything_for_records(
    tmp_path: Path, records: bytes, index: bytes, property: bytes
) -> None:
    (tmp_path / "train.rec").write_bytes(records)
    (tmp_path / "train.idx").write_bytes(index)
    (tmp_path / "property").write_bytes(property)
    open_and_read(tmp_path)


@FUZZ
@given(edits=edits, length=st.floats(0.01, 1))
def test_images(edits: list[tuple[float, bytes]], length: float) -> None:
    for image in jpegs(1, 32):
        with contextlib.suppress(InputError):
            ANY_IMAGE.decode(edited(image, edits, length))


PICKLES = [
    pickle.dumps(([b"abc", b"d"], [True]), 2),
    pickle.dumps(([b"abc", b"d"], [True]), 4),
    pickle.dumps(([np.frombuffer(b"abc", np.uint8)] * 2, [np.True_]), 4),
    pickle.dumps(([np.zeros((3, 1), np.uint8)] * 2, np.array([True])), 2),
]


@pytest.mark.parametrize("content", PICKLES)
def test_the_pickles_are_good_ones(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    images, same = read_pair_file(tmp_path / "a.bin")
    assert len(images) == 2
    assert same.tolist() == [True]
    assert {len(image) for image in images} <= {1, 3}


@FUZZ
@given(which=st.integers(0, len(PICKLES) - 1), edits=edits, length=st.floats(0.3, 1))
def test_pickles(
    tmp_path: Path, which: int, edits: list[tuple[float, bytes]], length: float
) -> None:
    (tmp_path / "a.bin").write_bytes(edited(PICKLES[which], edits, length))
    with contextlib.suppress(InputError):
        load_pairs(tmp_path / "a.bin")


opcodes = st.sampled_from([op.code.encode("latin1") for op in pickletools.opcodes])
pieces = st.one_of(
    opcodes,
    st.binary(max_size=5),
    st.sampled_from(
        [
            b"cos\nsystem\n",
            b"cnumpy\nndarray\n",
            b"cnumpy\ndtype\n",
            b"c_codecs\nencode\n",
            b"(",
            b"t",
        ]
    ),
)


@FUZZ
@given(body=st.lists(pieces, max_size=25))
def test_anything_for_pickles(body: list[bytes]) -> None:
    with contextlib.suppress(InputError):
        load_plain(b"".join(body) + b".")


HUGE = struct.pack("<Q", 1 << 36)
BOMBS = {
    "memo index": b"\x80\x04Nr\xff\xff\xff\x7f.",
    "bytearray": b"\x80\x05\x96" + HUGE + b"x.",
    "bytes": b"\x80\x04\x8e" + HUGE + b"x.",
    "text": b"\x80\x04\x8d" + HUGE + b"x.",
    "frame": b"\x80\x04\x95" + HUGE + b"N.",
    "an array of a shape": b"cnumpy\nndarray\n(I68719476736\ntR.",
    "an array by its shape": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I68719476736\ntS'b'\ntR."
    ),
    "a wide dtype": b"cnumpy\ndtype\n(S'V68719476736'\ntR.",
    # 36 times hex: every one doubles what it gets.
    "doubling": b"c_codecs\nencode\np0\n(S'a'\nS'hex'\ntR"
    + b"".join(b"p1\n0g0\n(g1\nS'hex'\ntR" for _ in range(36))
    + b".",
}


def test_one_array_many_times(tmp_path: Path) -> None:
    """A small file that names its only image a million times."""
    image = np.frombuffer(bytes(100_000), np.uint8)
    (tmp_path / "a.bin").write_bytes(pickle.dumps(([image] * 20_000, [True] * 10_000), 4))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images, _ = read_pair_file(tmp_path / "a.bin")
    assert len(images) == 20_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]cnumpy\nndarray\n)\x81a]\x86.",  # an array without a state
        b"cnumpy.core.multiarray\n_reconstruct\n(t}b.",  # the state of a function
        b"c_codecs\nencode\n}b.",
        pickle.dumps(([b"a", b"b"], np.array([1], "u8")))[:-3] + b"...",
        pickle.dumps(([b"a", b"b"], [[True]])),
        pickle.dumps(([[b"a"], b"b"], [True])),
    ],
)
def test_oddities_are_our_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(InputError):
        read_pair_file(tmp_path / "a.bin")


@pytest.mark.parametrize("name", BOMBS)
def test_no_bomb_takes_memory(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(InputError):
        load_plain(BOMBS[name])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000, f"{grown} kB more"
