"""Numbers that mislead come with a warning."""

from pathlib import Path

import pytest
import torch

from helpers.pictures import jpegs
from marginface.data import FolderDataset
from marginface.data.pairs.cautions import pair_cautions
from marginface.data.pairs.files import write_pair_file
from marginface.data.pairs.verification_sets import load_pairs
from marginface.data.shared_images import shared_images
from marginface.evaluation.benchmarks.gallery import Listed, same_files
from marginface.evaluation.cautions import embedding_cautions, rate_caution
from marginface.utils.errors import InputError


def pair_file(folder: Path, same: list[bool], twice: int = 0):
    """Pairs of different images, but the first `twice` of an image with itself."""
    images = jpegs(2 * len(same))
    for pair in range(twice):
        images[2 * pair + 1] = images[2 * pair]
    write_pair_file(folder / "pairs.bin", images, same)
    return load_pairs(folder / "pairs.bin")


@pytest.mark.parametrize(
    ("same", "folds", "warned"),
    [
        ([True] * 20 + [False] * 20, 10, 10),  # sorted by kind
        ([True, False] * 20, 10, 0),
        ([True] * 6 + [True, False] * 17, 10, 1),
        ([True, False] * 5, 10, 0),  # one pair a fold has no other kind
    ],
)
def test_folds_of_one_kind(same: list[bool], folds: int, warned: int, tmp_path: Path) -> None:
    cautions = pair_cautions(pair_file(tmp_path, same), folds)
    expected = [f"{warned} of {folds} folds hold pairs of one kind"] if warned else []
    assert [caution[: len(expected[0])] for caution in cautions] == expected


def test_pairs_of_an_image_with_itself(tmp_path: Path) -> None:
    (caution,) = pair_cautions(pair_file(tmp_path, [True, False] * 10, twice=3))
    assert caution.startswith("3 of 20 pairs, 2 of them genuine, are an image with itself")


def test_probes_that_are_gallery_images(tmp_path: Path) -> None:
    for name, content in (("1.jpg", b"one"), ("2.jpg", b"two"), ("copy.jpg", b"one")):
        (tmp_path / name).write_bytes(content)
    gallery = Listed(["1.jpg", "gone.jpg"], ["a", "b"], ["0", "1"])
    assert same_files(gallery, Listed(["2.jpg"], ["a"], ["0"]), tmp_path) == []
    probes = Listed(["./1.jpg", "2.jpg", "copy.jpg"], ["a", "b", "a"], ["0", "1", "2"])
    (caution,) = same_files(gallery, probes, tmp_path)
    assert caution.startswith("2 of 3 probes are the very files of the gallery")


def test_images_of_another_size(tmp_path: Path) -> None:
    pairs = pair_file(tmp_path, [True, False] * 10)
    assert pair_cautions(pairs) == []
    pairs.resize_to(160)
    (caution,) = pair_cautions(pairs)
    assert caution.startswith("the first image has 112x112 pixels and the network takes 160x160")


def test_copies_under_another_name(tmp_path: Path) -> None:
    first, second = jpegs(2)
    for name, content in (("a.jpg", first), ("copy.jpg", first), ("b.jpg", second)):
        (tmp_path / name).write_bytes(content)
    lines = ["first,second,same", *["a.jpg,copy.jpg,1", "a.jpg,b.jpg,0"] * 10]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    (caution,) = pair_cautions(load_pairs(tmp_path / "pairs.csv"))
    assert caution.startswith("10 of 20 pairs, 10 of them genuine, are an image with itself")


@pytest.mark.parametrize(
    ("embeddings", "warned"),
    [
        (torch.eye(4), False),
        (torch.ones(4, 8), True),
        (torch.zeros(4, 8), True),
        (torch.arange(1.0, 5)[:, None] * torch.ones(8), True),  # of one direction
        (torch.ones(4, 8) + 1e-7 * torch.randn(4, 8), True),
        (torch.cat([torch.ones(3, 8), torch.full((1, 8), torch.nan)]), True),
        (torch.cat([torch.ones(3, 8), -torch.ones(1, 8)]), False),
    ],
)
def test_embeddings_that_are_equal(embeddings: torch.Tensor, warned: bool) -> None:
    assert len(embedding_cautions(embeddings)) == warned


def test_embeddings_of_one_number() -> None:
    with pytest.raises(InputError, match="one number an image, which is no embedding"):
        embedding_cautions(torch.ones(4, 1))


def test_rates_from_few_false_matches() -> None:
    assert rate_caution("tar@far", [1e-2], 3000) == []
    (caution,) = rate_caution("tar@far", [1e-3, 1e-2], 2900)
    assert caution.startswith("tar@far rests on fewer than 30 false matches of 2,900")
    assert "2.9 at 1e-3, 29 at 1e-2" in caution


def test_test_images_in_the_training_set(tmp_path: Path) -> None:
    images = jpegs(8)
    for number, image in enumerate(images):
        (tmp_path / "faces" / f"p{number // 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "faces" / f"p{number // 2}" / f"{number}.jpg").write_bytes(image)
    faces = FolderDataset(tmp_path / "faces")
    write_pair_file(tmp_path / "own.bin", [images[3], b"other", images[4], b"more"], [True, False])
    found = shared_images(faces, load_pairs(tmp_path / "own.bin"))
    assert found is not None
    assert found.startswith("2 of 8 training images looked at are images of this verification set")
    assert "of 2 identities (p1, p2, ...)" in found
    write_pair_file(tmp_path / "new.bin", [b"a", b"b"], [True])
    assert shared_images(faces, load_pairs(tmp_path / "new.bin")) is None
