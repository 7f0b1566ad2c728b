"""Weights files of other people: read when they hold the network, refused with what to do."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from marginface.backbones import create_backbone, load_backbone_weights
from marginface.backbones.weights import _hint_at_timm, identify_network
from marginface.utils.errors import InputError

NAME = "mobilefacenet"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return create_backbone(NAME)


def named(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + key: value for key, value in state.items()}


HEAD = torch.randn(512, 30)
FILES = {
    "as it is": lambda state: state,
    "model.": lambda state: {"state_dict": {**named(state, "model."), "head.kernel": HEAD}},
    "features.module.": lambda state: {
        "state_dict": {**named(state, "features.module."), "fc.weight": HEAD}, "epoch": 25,
    },
    "_orig_mod.": lambda state: named(state, "_orig_mod."),
    "module.backbone.": lambda state: named(state, "module.backbone."),
    "backbone.": lambda state: {"state_dict": {**named(state, "backbone."), "head.weight": HEAD}},
    "of arcface_torch": lambda state: {
        "epoch": 3, "state_dict_backbone": state, "state_dict_softmax_fc": {"weight": HEAD},
        "state_optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    },
    "key model": lambda state: {"model": state},
    "deeper": lambda state: {"checkpoint": {"model": {"state_dict": state}}, "epoch": 3},
    "beside a deeper one": lambda state: {
        "callbacks": {"average": {"state_dict": {"a": HEAD}}}, "model": state,
    },
    "key of its own": lambda state: {"my_net": state, "iters": 3},
}  # fmt: skip


@pytest.mark.parametrize("start", [b"path,x1,y1\n", b"# A title\n", b"\x08\x0a\x12\x07pytorch"])
def test_other_files_are_not_called_pickles(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(start * 30)
    with pytest.raises(InputError, match=r"a.pth is not a readable .*: torch.save did not write"):
        load_backbone_weights(create_backbone("miniresnet8"), tmp_path / "a.pth")


@pytest.mark.parametrize("kind", FILES)
def test_weights_are_found(kind: str, network: nn.Module, tmp_path: Path) -> None:
    torch.save(FILES[kind](network.state_dict()), tmp_path / "weights.pth")
    fresh = create_backbone(NAME)
    load_backbone_weights(fresh, tmp_path / "weights.pth")
    for key, value in network.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value), key
    assert identify_network(tmp_path / "weights.pth") == {
        "name": NAME, "embedding_size": 512, "image_size": 112,
    }  # fmt: skip


def test_a_whole_module(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"holds pickled objects.*model.state_dict\(\)") as caught:
        load_backbone_weights(create_backbone(NAME), tmp_path / "weights.pth")
    assert "\x1b" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_a_torchscript_archive(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"is a TorchScript archive.*torch.jit.load\('weights.pth"):
        load_backbone_weights(create_backbone(NAME), tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": {"x": torch.ones(1)}, "b": {"y": torch.ones(1)}}, r"holds 2 of them \(a, b\)"),
        ({"epoch": 3}, "holds none, its keys are epoch; save the one of the network"),
        ([1, 2], "is not a state dict, got list"),
    ],
)
def test_no_state_dict(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=message):
        load_backbone_weights(create_backbone(NAME), tmp_path / "weights.pth")


def test_two_networks_in_a_file(network: nn.Module, tmp_path: Path) -> None:
    state = network.state_dict()
    both = {**named(state, "student."), **named(state, "teacher.")}
    torch.save(both, tmp_path / "weights.pth")
    with pytest.raises(InputError, match="holds 2 networks, student., teacher.; save the one"):
        load_backbone_weights(network, tmp_path / "weights.pth")


OTHER_FILES = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "page": (b"\n<!DOCTYPE html><html>", "is an HTML page: download the file itself"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer.*git lfs pull"),
    "json": (b'{"a": 1}', "is JSON text"),
    "pickle": (pickle.dumps({"a": 1}), "a pickle that torch.save did not write"),
    "cut": (b"PK\3\4 and no end", "is incomplete: the end of the file is missing"),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_files_that_are_something_else(kind: str, network: nn.Module, tmp_path: Path) -> None:
    content, message = OTHER_FILES[kind]
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_backbone_weights(network, tmp_path / "weights.pth")


def test_files_of_old_torch_are_read(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    load_backbone_weights(network, path)


def test_weights_of_a_timm_network_by_itself(tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("resnet10t", num_classes=64).state_dict(), tmp_path / "a.pth")
    network = create_backbone("resnet10t", embedding_size=64, image_size=32)
    with pytest.raises(InputError, match=r"by itself: backbone.pool=classifier"):
        load_backbone_weights(network, tmp_path / "a.pth")
    own = create_backbone("resnet10t", embedding_size=64, image_size=32, pool="classifier")
    load_backbone_weights(own, tmp_path / "a.pth")
    with pytest.raises(InputError, match="does not fit this backbone") as caught:
        load_backbone_weights(create_backbone("miniresnet8"), tmp_path / "a.pth")
    assert "pool=classifier" not in str(caught.value)
    # One tensor of another name says nothing of timm.
    assert _hint_at_timm(["model.a"], ["b"]) == ""
    assert _hint_at_timm(["model.a"], ["a"])
