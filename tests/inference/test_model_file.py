"""Opening trained networks: run folders, checkpoints, bare weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from marginface.backbones import create_backbone
from marginface.data import SyntheticFaces
from marginface.inference.embedder import Embedder, load_embedder
from marginface.inference.open_model import open_model
from marginface.utils.errors import InputError, MissingInputError


def test_bare_weights_are_recognized(tmp_path: Path) -> None:
    network = create_backbone("iresnet18", embedding_size=128)
    torch.save(network.state_dict(), tmp_path / "backbone.pth")
    model = open_model(tmp_path / "backbone.pth", color="bgr")
    assert (model.name, model.image_size, model.color) == ("iresnet18", 112, "bgr")
    images = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    found = Embedder(model.build(), 112, "rgb", flip=False)(images)
    expected = network.eval()(images.float() / 127.5 - 1).detach()
    assert torch.nn.functional.cosine_similarity(found, expected) == pytest.approx([1, 1], abs=1e-4)
    torch.save(network.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert open_model(tmp_path / "old.pth").name == "iresnet18"
    save_file(network.state_dict(), tmp_path / "new.safetensors")
    assert open_model(tmp_path / "new.safetensors").name == "iresnet18"
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match="not those of iresnet18, .*mobilefacenet.*backbone="):
        open_model(tmp_path / "other.pth")
    config = {"name": "iresnet34", "embedding_size": 128, "image_size": 112, "color": "rgb"}
    with pytest.raises(InputError, match="does not fit this backbone"):
        open_model(tmp_path / "backbone.pth", config).build()


def test_several_devices_give_the_same(run: Path) -> None:
    one = load_embedder(run)
    network, size = one.networks[0], one.image_size
    many = Embedder(network, size, "rgb", devices=["cpu", "cpu", "cpu"])
    faces = SyntheticFaces(run.parent / "faces", identities=3, images_per_identity=5, image_size=32)
    assert torch.equal(one.embed(faces, batch_size=4), many.embed(faces, batch_size=4))


def test_faults_of_checkpoints(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no checkpoint .*none.ckpt; give a run folder"):
        open_model(tmp_path / "none.ckpt")
    with pytest.raises(MissingInputError, match="is not a run folder with one"):
        open_model(tmp_path)
    with pytest.raises(InputError, match="was trained in rgb order; color=bgr"):
        open_model(run, color="bgr")
    with pytest.raises(InputError, match="states which network it holds"):
        open_model(run, {"name": "iresnet18"})
