"""Pair files are data, whoever wrote them; drawn pairs are balanced and repeatable."""

import os
import pickle
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marginface.data import SampledPairs, SyntheticFaces, load_pairs, write_pair_file
from marginface.data.images import encode_jpeg, resize_and_center_crop
from marginface.data.pairs.verification_sets import sample_pairs, split_identities
from marginface.utils.errors import InputError, MissingInputError


@pytest.mark.parametrize("writer", ["python2", "p2", "p4", "numpy"])
def test_reads_every_pickle(golden: Path, writer: str) -> None:
    pairs = load_pairs(golden / "recordio" / f"pairs_{writer}.bin")
    with (golden / "recordio" / f"pairs_{writer}.bin").open("rb") as file:
        images, same = pickle.load(file, encoding="bytes")  # ours, so it may run
    assert [bytes(image) for image in pairs.encoded] == [bytes(image) for image in images]
    assert pairs.same.tolist() == [bool(s) for s in same]
    assert pairs.images.shape == (len(images), 3, 112, 112)
    bgr = cv2.imdecode(np.frombuffer(bytes(images[3]), np.uint8), cv2.IMREAD_COLOR)
    assert (pairs.images[3].permute(1, 2, 0).numpy() == bgr[..., ::-1]).all()
    assert pairs.pairs[1].tolist() == [2, 3]


class Attack:
    """A pickle that runs a command when loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, (f"touch {self.marker}",))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pair_file_does_not_run(tmp_path: Path, protocol: int) -> None:
    path, marker = tmp_path / "evil.bin", tmp_path / "ran"
    path.write_bytes(pickle.dumps(([Attack(marker)], [True]), protocol))
    with pytest.raises(InputError, match=r"evil.bin: its pickle asks for .*system.*refused"):
        load_pairs(path)
    assert not marker.exists()


def write(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


def test_faults(tmp_path: Path) -> None:
    image = encode_jpeg(np.zeros((112, 112, 3), np.uint8))
    with pytest.raises(MissingInputError, match="no pair file"):
        load_pairs(tmp_path / "absent.bin")
    with pytest.raises(InputError, match="2 labels need 4 images, got 3"):
        load_pairs(write(tmp_path / "odd.bin", ([image] * 3, [True, False])))
    with pytest.raises(InputError, match="expected a pickled"):
        load_pairs(write(tmp_path / "list.bin", [1, 2, 3]))
    with pytest.raises(InputError, match="image 1 is str"):
        load_pairs(write(tmp_path / "text.bin", ([image, "text"], [True])))
    (tmp_path / "jpeg.bin").write_bytes(image)
    with pytest.raises(InputError, match="not a pickle of images and labels"):
        load_pairs(tmp_path / "jpeg.bin")
    with pytest.raises(InputError, match=r"image 1 of .*not a decodable image"):
        _ = load_pairs(write(tmp_path / "broken.bin", ([image, b"x"], [True]))).images


def test_other_sizes_are_scaled_by_the_short_side() -> None:
    picture = np.zeros((300, 200, 3), np.uint8)
    picture[100:200] = 255  # the middle third survives the cut
    fitted = resize_and_center_crop(picture, 112)
    assert fitted.shape == (112, 112, 3)
    assert fitted[56].min() == 255
    assert fitted[0].max() < 255


@given(
    counts=st.lists(st.integers(1, 7), min_size=3, max_size=12),
    num_pairs=st.integers(20, 60),
    seed=st.integers(0, 5),
)
def test_drawn_pairs(counts: list[int], num_pairs: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    genuine = sum(n * (n - 1) // 2 for n in counts)
    impostor = len(labels) * (len(labels) - 1) // 2 - genuine
    try:
        pairs, same = sample_pairs(labels, num_pairs, seed)
    except InputError as error:
        assert "cannot draw" in str(error)
        assert min(genuine, impostor) < 10
        return
    assert len(pairs) == min(num_pairs // 2, genuine, impostor) // 10 * 20
    assert ((labels[pairs[:, 0]] == labels[pairs[:, 1]]) == same).all()
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len({tuple(sorted(p)) for p in pairs.tolist()}) == len(pairs)
    for fold in np.array_split(same, 10):
        assert abs(fold.mean() - 0.5) < 0.5 / len(fold) + 1e-9
    again, _ = sample_pairs(labels, num_pairs, seed)
    assert (again == pairs).all()


def test_held_out_identities_are_disjoint_and_seeded() -> None:
    labels = np.repeat(np.arange(20), 3)
    train, held = split_identities(labels, 5, seed=1)
    assert len(np.unique(labels[held])) == 5
    assert not set(labels[train]) & set(labels[held])
    assert len(train) + len(held) == 60
    assert (split_identities(labels, 5, seed=1)[1] == held).all()
    assert (split_identities(labels, 5, seed=2)[1] != held).any()
    with pytest.raises(
        InputError,
        match="val_identities=19 of 20 identities leaves fewer than 2 .* hold out 0 to 18",
    ):
        split_identities(labels, 19, seed=1)


def test_drawn_pairs_are_a_dataset(tmp_path: Path) -> None:
    faces = SyntheticFaces(tmp_path, identities=4, images_per_identity=5, image_size=32)
    pairs = SampledPairs(faces, 20, seed=0)
    assert len(pairs) == 20
    assert (pairs[7][0] == faces[7][0]).all()
    assert len(SampledPairs(faces, 3000, seed=0).same) == 80, "as many as there are"
    few = SyntheticFaces(tmp_path, identities=2, images_per_identity=3, image_size=32)
    with pytest.raises(InputError, match="cannot draw data.val_pairs=3000 .* 6 genuine and 9 impo"):
        SampledPairs(few, 3000, seed=0)


class TestLists:
    """LFW's pairs.txt and pairs.csv."""

    @pytest.fixture
    def lfw(self, tmp_path: Path) -> Path:
        for person, count in (("Ann_Lee", 3), ("Bo", 2)):
            for number in range(1, count + 1):
                path = tmp_path / "lfw" / person / f"{person}_{number:04d}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode_jpeg(np.full((250, 250, 3), 40 * number, np.uint8)))
        (tmp_path / "lfw" / "pairs.txt").write_text("1\t1\nAnn_Lee\t1\t3\nAnn_Lee\t2\tBo\t1\n")
        return tmp_path / "lfw"

    def test_lfw(self, lfw: Path) -> None:
        pairs = load_pairs(lfw / "pairs.txt")
        assert pairs.same.tolist() == [True, False]
        assert pairs.images.shape == (4, 3, 112, 112)
        assert pairs.images[:, 0, 50, 50].tolist() == [40, 120, 80, 40]
        assert pairs.name == "pairs"
        assert pairs.describe(3).endswith("Bo/Bo_0001.jpg")

    def test_images_elsewhere(self, lfw: Path, tmp_path: Path) -> None:
        moved = tmp_path / "lists" / "pairs.txt"
        moved.parent.mkdir()
        (lfw / "pairs.txt").rename(moved)
        with pytest.raises(InputError, match=r"line 2 names Ann_Lee/Ann_Lee_0001.jpg.*pairs_root"):
            load_pairs(moved)
        assert len(load_pairs(moved, root=lfw)) == 4

    def test_csv(self, lfw: Path) -> None:
        path = lfw / "mine.csv"
        rows = "Bo/Bo_0001.jpg,Bo/Bo_0002.jpg,1\nAnn_Lee/Ann_Lee_0001.jpg,Bo/Bo_0001.jpg,false\n"
        path.write_text("first,second,same\n" + rows)
        pairs = load_pairs(path)
        assert pairs.same.tolist() == [True, False]
        assert pairs.image_bytes(1) == (lfw / "Bo" / "Bo_0002.jpg").read_bytes()
        path.write_text("first,second\n" + rows)
        with pytest.raises(InputError, match="no column same; expected first,second,same"):
            load_pairs(path)
        path.write_text("first,second,same\na,b,perhaps\n")
        with pytest.raises(InputError, match="line 2: expected two images and same=1 or 0"):
            load_pairs(path)
        path.write_text("first,second,same\na.jpg,b.jpg,1\n")
        with pytest.raises(InputError, match="none of its first 2 images is below .*pairs_root"):
            load_pairs(path)

    @pytest.mark.parametrize("line", ["Bo 1", "Bo one two", "Bo 1 Ann_Lee 1 1", "Bo 1 Bo x"])
    def test_lines_that_are_no_pair(self, lfw: Path, line: str) -> None:
        (lfw / "pairs.txt").write_text(f"1 1\nBo 1 2\n{line}\n")
        with pytest.raises(InputError, match="line 3 is neither 'name i j' nor"):
            load_pairs(lfw / "pairs.txt")

    def test_a_bcolz_folder_says_how_to_convert(self, tmp_path: Path) -> None:
        (tmp_path / "lfw" / "meta").mkdir(parents=True)
        with pytest.raises(InputError, match="is a bcolz array.*pickle"):
            load_pairs(tmp_path / "lfw")


class TestWriting:
    """Our .bin files."""

    IMAGES: ClassVar = [encode_jpeg(np.full((112, 112, 3), 50 * k, np.uint8)) for k in range(4)]

    def test_round_trip(self, tmp_path: Path) -> None:
        write_pair_file(tmp_path / "a.bin", self.IMAGES, [True, False])
        pairs = load_pairs(tmp_path / "a.bin")
        assert pairs.encoded == self.IMAGES
        assert pairs.same.tolist() == [True, False]
        with (tmp_path / "a.bin").open("rb") as file:  # as insightface's reader does
            images, same = pickle.load(file, encoding="bytes")
        assert (images, same) == (self.IMAGES, [True, False])

    def test_golden_files_again(self, golden: Path, tmp_path: Path) -> None:
        for source in sorted((golden / "recordio").glob("*.bin")):
            pairs = load_pairs(source)
            write_pair_file(tmp_path / source.name, pairs.encoded, pairs.same.tolist())  # type: ignore[arg-type]
            again = load_pairs(tmp_path / source.name)
            assert again.encoded == pairs.encoded
            assert again.same.tolist() == pairs.same.tolist()

    def test_refusals(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="2 labels need 4 images, got 3"):
            write_pair_file(tmp_path / "a.bin", self.IMAGES[:3], [True, False])
        (tmp_path / "b.bin").write_text("mine")
        with pytest.raises(InputError, match="b.bin exists; choose another name"):
            write_pair_file(tmp_path / "b.bin", self.IMAGES, [True, False])
        assert (tmp_path / "b.bin").read_text() == "mine"
