"""What runs in every step and sends nothing to a GPU that the host would wait for."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.waits import Waits, say_it_is_on_a_gpu
from marginface.backbones.flat_vit import FlatViT
from marginface.data import preprocessing
from marginface.data.preprocessing import normalize_images


def queued(device: torch.device, tensor: Tensor) -> Tensor:
    """As `queue_to` does it; page-locked memory needs a GPU."""
    return tensor.to(device, non_blocking=True)


@pytest.mark.parametrize("mean", [127.5, 128.0])
def test_means_of_other_networks(mean: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "queue_to", queued)
    with FakeTensorMode(), Waits() as waits:
        images = torch.empty(2, 3, 8, 8, dtype=torch.uint8, device="cuda")
        assert normalize_images(images, "bgr", [mean] * 3, [128.0] * 3).device.type == "cuda"
    assert waits.found == set()


def test_keypoints_of_the_template() -> None:
    network = FlatViT(
        embed_dim=8, depth=1, num_heads=2, patch_size=8, img_size=16, num_classes=4,
        keypoints=True,
    )  # fmt: skip
    with FakeTensorMode(allow_non_fake_inputs=True):
        say_it_is_on_a_gpu(network)
        tokens = torch.empty(3, 4, 8, device="cuda")
        with Waits() as waits:
            found = network._position_biases(tokens, None)
    assert found.shape == (1, 1, 2, 4, 4)
    assert waits.found == set()
