"""IResNet against insightface: keys, shapes, trainable parameters, embeddings, a training run."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from helpers.plain_loop import train_steps
from marginface.backbones import create_backbone
from marginface.data.preprocessing import normalize_images
from marginface.heads import create_head
from marginface.training.schedulers import constant


def filled(name: str, shape: torch.Size) -> Tensor:
    """The value golden/README.md prescribes for a tensor of that name."""
    v = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        v = 1 + 0.1 * np.abs(v)
    elif name.endswith(("running_mean", "bias")):
        v = 0.05 * v
    elif v.ndim >= 2:
        v = v / np.sqrt(np.prod(shape[1:]))
    elif "prelu" in name:
        v = 0.25 + 0.02 * v
    else:
        v = 1 + 0.05 * v
    return torch.from_numpy(np.asarray(v, np.float32))


def fill(model: nn.Module) -> nn.Module:
    state = model.state_dict()
    floats = {k: filled(k, v.shape) for k, v in state.items() if v.is_floating_point()}
    model.load_state_dict(state | floats)
    return model


@pytest.mark.parametrize("depth", [18, 34, 50, 100, 200])
def test_state_dict_is_insightfaces(golden: Path, depth: int) -> None:
    expected = json.loads((golden / "iresnet_state_dict.json").read_text())
    with torch.device("meta"):
        model = timm.create_model(f"iresnet{depth}", num_classes=512)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes == expected[f"iresnet{depth}"]
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == expected[f"iresnet{depth}.trainable"]


def test_embeddings_are_insightfaces(golden: Path) -> None:
    model = fill(create_backbone("iresnet18")).eval()
    images = np.random.RandomState(7).standard_normal((2, 3, 112, 112)).clip(-1, 1)
    expected = np.load(golden / "iresnet_embeddings.npz")
    with torch.no_grad():
        embeddings = model(torch.from_numpy(images.astype(np.float32)))
    (key,) = expected.files
    torch.testing.assert_close(embeddings, torch.from_numpy(expected[key]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["x2softmax", pytest.param("arcface", marks=pytest.mark.slow)])
def test_training_is_the_official_loop(golden: Path, name: str) -> None:
    case = json.loads((golden / "training.json").read_text())[name]
    generator = np.random.RandomState(case["seed"])
    batches = []
    for _ in range(len(case["loss"])):
        images = generator.uniform(-1, 1, (8, 3, 112, 112)).astype(np.float32)
        batches.append((torch.from_numpy(images), torch.from_numpy(generator.randint(0, 10, 8))))
    keys = ("scale", "a", "h", "k") if name == "x2softmax" else ("scale", "margin")
    head = create_head(
        name,
        embedding_size=512,
        num_classes=10,
        **dict(zip(keys, case["params"], strict=True)),
    )
    weight = np.random.RandomState(zlib.crc32(b"head.weight")).standard_normal((10, 512))
    head.weight.data = torch.from_numpy(0.01 * weight).float()
    losses = train_steps(
        fill(create_backbone("iresnet18")),
        head,
        batches,
        make_optimizer=lambda groups: torch.optim.SGD(
            groups, lr=0.1, momentum=0.9, weight_decay=5e-4
        ),
        make_schedule=constant,
        gradient_clip_val=5.0,
    )
    assert losses == pytest.approx(case["loss"], rel=2e-3)


def test_listed_by_timm() -> None:
    names = ["iresnet", "iresnet18", "iresnet34", "iresnet50", "iresnet100", "iresnet200"]
    assert sorted(timm.list_models("iresnet*")) == sorted(names)


def test_normalization_is_the_one_the_networks_expect() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([(x / 255 - 0.5) / 0.5 for x in (0, 51, 255)]).view(1, 3, 1, 1)
    torch.testing.assert_close(normalize_images(images), expected)
    torch.testing.assert_close(normalize_images(images, "bgr"), expected.flip(1))
