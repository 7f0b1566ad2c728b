"""RandAugment is torchvision's, drawn from (seed, epoch, image) and made to a batch at once."""

import pytest
import torch
import torchvision.transforms.v2
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.operations import Operations
from helpers.waits import Waits
from marginface.data import Augmentation
from marginface.data.rand_augment import RandAugment
from marginface.utils import hardware
from marginface.utils.seeded_random import hash_uniform


def random_images(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8).permute(0, 3, 1, 2)


def test_an_image_is_changed_alike_in_any_batch() -> None:
    images, indices = random_images(40), torch.arange(40)
    change = Augmentation(flip=0, rand_augment=2)
    state = torch.random.get_rng_state()
    whole = change(images, indices, 5, 0)
    assert torch.equal(torch.random.get_rng_state(), state), "others draw the same as without"
    some = torch.tensor([14, 1, 33])
    assert torch.equal(change(images[some], some, 5, 0), whole[some])
    assert whole.dtype == torch.uint8
    assert not torch.equal(whole, images)
    assert not torch.equal(change(images, indices, 5, 1), whole), "another epoch, others"
    assert not torch.equal(change(images, indices, 6, 0), whole)


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_it_is_torchvisions(magnitude: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn, given to torchvision's own loop over the changes of one image."""
    images, indices = random_images(60), torch.arange(60)
    drawn = hash_uniform(5 ^ 0x52416E64, 2, indices, 2, range(3)).tolist()
    found = RandAugment(3, magnitude).of_batch(images, indices, 5, 2)
    theirs = torchvision.transforms.v2.RandAugment(3, magnitude, fill=127)
    space = list(theirs._AUGMENTATION_SPACE.items())
    seen = set()
    for row, image in enumerate(images):
        items = iter([space[int(layer[row][0] * len(space))] for layer in drawn])
        # One is drawn only for a change that has two directions.
        signs = iter([
            torch.tensor(layer[row][1])
            for layer in drawn
            if space[int(layer[row][0] * len(space))][1][1]
        ])  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(theirs, "_get_random_item", lambda _, items=items: next(items))
            patch.setattr(torch, "rand", lambda _, signs=signs: next(signs))
            assert torch.equal(found[row], theirs(image))
        seen |= {int(layer[row][0] * len(space)) for layer in drawn}
    assert len(seen) == 14, "every change was compared"


def test_each_change_and_direction_is_as_probable_as_torchvision_draws_it() -> None:
    change = RandAugment(1, 9)
    kinds = change._kinds(hash_uniform(1, 0, torch.arange(56_000), 2, [0])[0])
    shares = torch.bincount(kinds, minlength=28).double() / len(kinds)
    signed = [signed for _, signed in change._AUGMENTATION_SPACE.values()]
    assert sum(signed) == 9
    for number, has_two in enumerate(signed):
        expected = [1 / 28, 1 / 28] if has_two else [1 / 14, 0.0]
        assert shares[2 * number : 2 * number + 2].tolist() == pytest.approx(expected, abs=4e-3)


def test_as_many_operations_for_any_batch() -> None:
    """Each is a launch on a GPU, or one on the host beside it."""
    change = RandAugment(2, 9)
    for count in (256, 1024):
        with Operations() as operations:
            change.of_batch(random_images(count), torch.arange(count), 0, 0)
        assert operations.launched().total() <= 800


def test_no_change_waits_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    # Page-locked memory needs a GPU, and a magnitude the value of a tensor.
    monkeypatch.setattr(hardware, "queue_to", lambda device, t: t.to(device, non_blocking=True))
    monkeypatch.setattr(RandAugment, "_magnitude", lambda *_: 0.3)
    change = RandAugment(1, 9)
    with FakeTensorMode():
        images = torch.empty(2, 3, 32, 32, dtype=torch.uint8, device="cuda")
        for kind in range(28):
            with Waits() as waits, hardware.QueuedTensors():
                assert change._changed(images, kind).device.type == "cuda"
            assert waits.found == set()


def test_without_the_queue_the_test_above_finds_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RandAugment, "_magnitude", lambda *_: 0.3)
    with FakeTensorMode(), Waits() as waits:
        images = torch.empty(2, 3, 32, 32, dtype=torch.uint8, device="cuda")
        RandAugment(1, 9)._changed(images, 2)
    assert "_to_copy" in " ".join(waits.found)
