"""Folders, synthetic faces and what all datasets share."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from marginface.data import FaceDataset, FolderDataset, Subset, SyntheticFaces, make_loader
from marginface.utils.errors import InputError, MissingInputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, person in enumerate(["bob", "alice", "empty"]):
        (tmp_path / person).mkdir()
        for k in range(2 if person != "empty" else 0):
            picture = np.full((112, 112, 3), (10 * number, 20 * k, 200), np.uint8)  # BGR
            cv2.imwrite(str(tmp_path / person / f"{k}.png"), picture)
    (tmp_path / "alice" / "notes.txt").write_text("no image")
    (tmp_path / "alice" / ".hidden.jpg").write_text("no image")
    return tmp_path


def test_folder(folder: Path) -> None:
    dataset = FolderDataset(folder)
    assert dataset.identities == ["alice", "bob"]
    assert dataset.files == ["alice/0.png", "alice/1.png", "bob/0.png", "bob/1.png"]
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    assert dataset.num_classes == 2
    image, label, index = dataset[1]
    assert image.dtype == torch.uint8
    assert image[:, 0, 0].tolist() == [200, 20, 10]  # RGB
    assert (label, index) == (0, 1)


def test_folder_faults(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no folder .*absent; data.root must name"):
        FolderDataset(folder / "absent")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="nothing holds no images: expected"):
        FolderDataset(tmp_path / "nothing")
    (folder / "bob" / "2.jpg").write_text("no image")
    with pytest.raises(InputError, match=r"bob/2.jpg: not a decodable image"):
        FolderDataset(folder)[3 + 1]
    (folder / "bob" / "2.jpg").unlink()
    with pytest.raises(InputError, match=r"cannot be read"):
        dataset = FolderDataset(folder)
        (folder / "bob" / "1.png").unlink()
        _ = dataset[3]


def test_other_sizes_are_refused_unless_asked_for(folder: Path) -> None:
    with pytest.raises(InputError, match=r"alice/0.png: 112x112 pixels, expected 96x96"):
        FolderDataset(folder, image_size=96)[0]
    assert FolderDataset(folder, image_size=96, resize=True)[0][0].shape == (3, 96, 96)


def test_batches_equal_items(folder: Path) -> None:
    dataset = FolderDataset(folder)
    images, labels, indices = dataset.__getitems__([3, -1, 0])
    assert (images[0] == dataset[3][0]).all()
    assert not images[1].any()
    assert labels.tolist() == [1, -1, 0]
    assert indices.tolist() == [3, -1, 0]
    with pytest.raises(IndexError):
        dataset[4]


def test_labels_are_checked() -> None:
    with pytest.raises(InputError, match=r"label 3 of image 1 is outside \[0, 3\)"):
        FaceDataset(np.array([0, 3]), 3)
    with pytest.raises(InputError, match=r"label -2 of image 0 is outside"):
        FaceDataset(np.array([-2, 3]))


def test_subset_renumbers(folder: Path) -> None:
    dataset = FolderDataset(folder)
    subset = Subset(dataset, np.array([2, 3]))
    assert subset.labels.tolist() == [0, 0]
    assert subset.num_classes == 1
    assert (subset[1][0] == dataset[3][0]).all()
    assert subset.describe(1).endswith("bob/1.png")


def test_fingerprint_sees_other_files(folder: Path) -> None:
    before = FolderDataset(folder).fingerprint()
    assert FolderDataset(folder).fingerprint() == before
    (folder / "bob" / "1.png").rename(folder / "bob" / "2.png")
    assert FolderDataset(folder).fingerprint() != before


class TestSynthetic:
    """Rendered faces."""

    def test_the_same_seed_gives_the_same_pixels(self, tmp_path: Path) -> None:
        first = SyntheticFaces(tmp_path / "a", identities=3, images_per_identity=2)
        second = SyntheticFaces(tmp_path / "b", identities=3, images_per_identity=2)
        other = SyntheticFaces(tmp_path / "b", identities=3, images_per_identity=2, seed=1)
        assert first.path.read_bytes() == second.path.read_bytes()
        assert other.path != second.path
        assert first[0][0].shape == (3, 112, 112)
        assert (first[0][0] != other[0][0]).any()

    def test_more_identities_keep_the_first_ones(self, tmp_path: Path) -> None:
        few = SyntheticFaces(tmp_path, identities=2, images_per_identity=2)
        more = SyntheticFaces(tmp_path, identities=4, images_per_identity=2)
        assert (few[3][0] == more[3][0]).all()

    def test_rendered_once(self, tmp_path: Path) -> None:
        first = SyntheticFaces(tmp_path, identities=2, images_per_identity=2)
        stamp = first.path.stat().st_mtime_ns
        assert SyntheticFaces(tmp_path, identities=2, images_per_identity=2).path == first.path
        assert first.path.stat().st_mtime_ns == stamp
        assert [p.name for p in tmp_path.iterdir()] == [first.path.name]

    def test_pickles_without_its_pixels(self, tmp_path: Path) -> None:
        faces = SyntheticFaces(tmp_path, identities=3, images_per_identity=4)
        copy = pickle.loads(pickle.dumps(faces))
        assert len(pickle.dumps(faces)) < 5_000
        assert (copy[5][0] == faces[5][0]).all()

    def test_faults(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="got identities=0"):
            SyntheticFaces(tmp_path, identities=0)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_make_loader(folder: Path, num_workers: int) -> None:
    dataset = FolderDataset(folder)
    settings = {"batch_size": 3, "num_workers": num_workers, "shuffle": True, "seed": 4}
    loader = make_loader(dataset, **settings)  # type: ignore[arg-type]
    batches = list(loader)
    assert [len(images) for images, _, _ in batches] == [3, 1]
    assert sorted(i for _, _, indices in batches for i in indices.tolist()) == [0, 1, 2, 3]
    for images, labels, indices in batches:
        assert images.dtype == torch.uint8
        for image, label, index in zip(images, labels, indices, strict=True):
            assert (image == dataset[int(index)][0]).all()
            assert label == dataset.labels[index]
    again = make_loader(dataset, **settings)  # type: ignore[arg-type]
    assert [b[2].tolist() for b in again] == [b[2].tolist() for b in batches]
    assert loader.wait_seconds > 0
