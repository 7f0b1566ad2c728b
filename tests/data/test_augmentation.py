"""Each change does what it says, to as many images as it should, from (seed, epoch, index)."""

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.operations import Operations
from helpers.pictures import picture
from marginface.data import Augmentation
from marginface.data.augmentation import CHANGES, blur, crop, erase, low_resolution, photometric
from marginface.utils.errors import InputError
from marginface.utils.seeded_random import hash_uniform


def faces(count: int, size: int = 48) -> Tensor:
    return torch.from_numpy(np.stack([picture(k, size) for k in range(count)])).permute(0, 3, 1, 2)


STRONG = dict.fromkeys(CHANGES, 0.5)


class TestReproducible:
    """Who asks, and with which others, makes no difference."""

    def test_any_batch_any_order(self) -> None:
        images, indices = faces(24), torch.arange(100, 124)
        augmentation = Augmentation(**STRONG)
        whole = augmentation(images, indices, seed=5, epoch=2)
        order = torch.randperm(24)
        shuffled = augmentation(images[order], indices[order], seed=5, epoch=2)
        assert torch.equal(shuffled, whole[order])
        halves = [augmentation(images[k::3], indices[k::3], 5, 2) for k in range(3)]
        assert all(torch.equal(part, whole[k::3]) for k, part in enumerate(halves))

    def test_other_epochs_and_seeds_differ(self) -> None:
        images, indices = faces(8), torch.arange(8)
        augmentation = Augmentation(**STRONG)
        results = [
            augmentation(images, indices, seed, epoch) for seed in (0, 1) for epoch in (0, 1)
        ]
        for k, one in enumerate(results):
            assert all(not torch.equal(one, other) for other in results[k + 1 :])

    def test_the_given_batch_is_left_alone(self) -> None:
        images = faces(8)
        before = images.clone()
        Augmentation(**STRONG)(images, torch.arange(8), 0, 0)
        assert torch.equal(images, before)


@pytest.mark.parametrize("name", CHANGES)
def test_as_often_as_asked(name: str) -> None:
    images = faces(1, 24).expand(600, -1, -1, -1)
    changed = Augmentation(flip=0, **{name: 0.3})(images, torch.arange(600), 0, 0)
    assert changed.dtype == torch.uint8
    share = (changed != images).flatten(1).any(1).double().mean()
    assert 0.2 < share < 0.36, "some changes are too small to be seen"


def test_none_changes_nothing() -> None:
    images = faces(4)
    assert torch.equal(Augmentation(flip=0)(images, torch.arange(4), 0, 0), images)


def test_few_operations_for_a_whole_batch() -> None:
    """Each is a launch on a GPU, or one on the host beside it."""
    every = dict.fromkeys(CHANGES, 0.2)
    for probabilities, most in (({"low_resolution": 0.2}, 200), (every, 450)):
        with Operations() as operations:
            Augmentation(**probabilities)(faces(128), torch.arange(128), 0, 0)
        assert operations.launched().total() <= most


def test_uniform_numbers() -> None:
    numbers, other = hash_uniform(3, 1, torch.arange(20_000), 2, [4, 5]).double()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = torch.histc(numbers.flatten(), 20, 0, 1) / numbers.numel()
    assert ((counts - 0.05).abs() < 0.005).all()
    for pair in (numbers.T, torch.stack([numbers[:, 0], other[:, 0]])):
        assert torch.corrcoef(pair)[0, 1].abs() < 0.03


def numbers_of(*values: float) -> Tensor:
    return torch.tensor([[*values, *[0.5] * (8 - len(values))]])


class TestEachChange:
    """Against what its numbers say."""

    def test_crop_keeps_a_window(self) -> None:
        image = torch.full((1, 3, 100, 100), 9.0)
        kept = crop(image, numbers_of(0.375, 0.5, 0.0, 0.999))[0, 0] > 0  # half the area, square
        assert kept.sum() == 71**2
        assert kept[:71, -71:].all(), "at the top, to the right"

    def test_erase_grays_a_window(self) -> None:
        image = torch.zeros(1, 3, 100, 100)
        erased = erase(image, numbers_of(1.0, 0.5, 0.0, 0.0))[0]
        assert (erased == 127).sum() == 3 * 45**2
        assert (erased[:, :45, :45] == 127).all()

    def test_photometric(self) -> None:
        image = torch.tensor([10.0, 60.0, 110.0]).view(1, 3, 1, 1).expand(-1, -1, 4, 4)
        same = photometric(image, numbers_of(0.5, 0.5, 0.5))
        torch.testing.assert_close(same, image)
        torch.testing.assert_close(photometric(image, numbers_of(1.0, 0.5, 0.5)), image * 1.5)
        luma = 0.299 * 10 + 0.587 * 60 + 0.114 * 110
        pale = photometric(image, numbers_of(0.5, 0.5, 0.0))
        torch.testing.assert_close(pale, luma + 0.5 * (image - luma))

    def test_blur_is_a_gaussian(self) -> None:
        from scipy.ndimage import gaussian_filter

        image = faces(1)[:, :, :, :].float()
        blurred = blur(image, numbers_of(0.5))[0, 1].numpy()  # sigma 1.25
        expected = gaussian_filter(image[0, 1].double().numpy(), 1.25, mode="nearest", radius=5)
        assert abs(blurred - expected).max() < 1e-3

    def test_low_resolution_loses_detail_and_keeps_the_mean(self) -> None:
        noise = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 255
        for method in (0.1, 0.5, 0.9):
            low = low_resolution(noise, numbers_of(0.0, method))
            assert low.std() < 0.3 * noise.std()
            assert abs(low.mean() - noise.mean()) < 3
        whole = low_resolution(noise, numbers_of(1.0, 0.1))
        torch.testing.assert_close(whole, noise, atol=30, rtol=0)

    def test_affine_turns_about_the_center(self) -> None:
        image = torch.zeros(1, 3, 101, 101)
        image[:, :, 48:53, 88:93] = 255
        turned = CHANGES["affine"](image, numbers_of(1.0, 0.5, 0.5, 0.5))[0, 0]  # 15 degrees
        rows, columns = torch.nonzero(turned > 100, as_tuple=True)
        place = np.array([columns.double().mean() - 50, rows.double().mean() - 50])
        angle = np.deg2rad(15)
        assert np.allclose(place, [40 * np.cos(angle), -40 * np.sin(angle)], atol=1)


def test_what_is_no_probability() -> None:
    with pytest.raises(InputError, match=r"augmentation.blur must be within \[0, 1\], got 1.5"):
        Augmentation(blur=1.5)
    with pytest.raises(InputError, match="augmentation.flip must be 0 or 0.5, got 0.3"):
        Augmentation(flip=0.3)


@pytest.mark.parametrize("settings", [{"rand_augment": -1}, {"rand_augment_magnitude": 31}])
def test_ranges_of_rand_augment(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"within \[0, 30\]"):
        Augmentation(**settings)
