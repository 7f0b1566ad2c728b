"""Training from files of other projects: the network, its images, checkpoints, exports, resume."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import marginface
from helpers.foreign_files import facts, file_of, filled, shapes_of
from helpers.runs import compose
from marginface.backbones import create_backbone, load_pretrained
from marginface.backbones.factory import network_settings
from marginface.inference.export_folder import FolderOptions, write_shared_folder
from marginface.inference.open_model import open_model
from marginface.runs.checkpoint_file import read_checkpoint
from marginface.training.config import train_problems
from marginface.training.run import train
from marginface.training.starting_weights import with_network_of_file
from marginface.utils.errors import InputError, MissingInputError

# A rate at which nothing moves but the running statistics of batch normalization.
STILL = ["optimizer.lr=1e-30", "trainer.max_steps=1", "data.batch_size=4"]
SMALL = {
    ("adaface", "ir_18"): ("ir", "bgr", 127.5),
    ("magface", "iresnet18"): ("iresnet18", "bgr", 0.0),
    ("insightface", "mbf"): ("mbf", "rgb", 127.5),
    ("timmface", "vit_tiny_patch8_112"): ("vit_tiny_patch16_224", "rgb", 127.5),
    ("edgeface", "edgeface_xs_gamma_06"): ("edgeface", "rgb", 127.5),
}
QUICK = ("mbf",)  # the others only by `make test-long`


def published(golden: Path, folder: Path, family: str, name: str) -> Path:
    kind = facts(golden, family)["checkpoints"][0]
    state = filled(shapes_of(golden, family, name))
    return file_of(state, kind, folder / f"{family}{kind['suffix']}")


def node(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = compose("backbone=pretrained", "backbone.weights=x")["backbone"]
    return given | changes


@pytest.mark.parametrize(
    ("family", "name"),
    [case if case[1] in QUICK else pytest.param(*case, marks=pytest.mark.long) for case in SMALL],
)
def test_the_network_of_the_file_is_trained(
    golden: Path, tiny_run: list[str], tmp_path: Path, family: str, name: str
) -> None:
    """Weights come out as they went in, with their order of colors and their scaling."""
    path = published(golden, tmp_path, family, name)
    settings = ["backbone=pretrained", f"backbone.weights={path}", "backbone.dropout=0"]
    run = tmp_path / "run"
    train(compose(*tiny_run, *settings, *STILL, "backbone.image_size=112", run_dir=run))
    kept = read_checkpoint(run / "checkpoints" / "last.ckpt")
    trained = {k.removeprefix("backbone."): v for k, v in kept["state_dict"].items()}
    network, about = load_pretrained(path)
    for key, value in network.named_parameters():
        assert torch.allclose(trained[key], value, atol=1e-6), key
    wanted, color, mean = SMALL[family, name]
    found = kept["marginface"]["description"]["config"]["backbone"]
    assert (found["name"], found["color"], found["mean"]) == (wanted, color, [mean] * 3)
    model = marginface.load(run, checkpoint="last", device="cpu")
    assert model.description.input.mean == about.mean
    # The shared folder builds it from its description alone, and embeds the same.
    faces = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    options = FolderOptions(license="mit")
    write_shared_folder(open_model(run, checkpoint="last"), tmp_path / "shared", options)
    weights = tmp_path / "shared" / "model.safetensors"
    assert with_network_of_file(node(weights=str(weights)))["color"] == color
    again = marginface.load(tmp_path / "shared", device="cpu")
    assert again.color == color
    assert np.abs(again.embed_aligned(faces) - model.embed_aligned(faces)).max() < 1e-5


def test_a_file_decides_over_another_name(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = published(golden, tmp_path, "magface", "iresnet18")
    given = compose(f"backbone.weights={path}")["backbone"]
    found = with_network_of_file(given)
    assert (found["name"], found["model"], found["color"]) == (
        "iresnet18", {"magface": True}, "bgr",
    )  # fmt: skip
    assert found["dropout"] == given["dropout"]
    printed = capsys.readouterr()
    assert "a network of magface, because its names begin with layer1.0.bn1.weight" in printed.out
    assert "backbone.name=miniresnet8_half gives way to the network of" in printed.err
    # Recognized once, the node stays what it is: a resumed run has the same settings.
    assert with_network_of_file(found) == found


def test_colors_that_only_the_user_knows(golden: Path, tmp_path: Path) -> None:
    path = published(golden, tmp_path, "cvlface", "ir18")
    assert with_network_of_file(node(weights=str(path)))["color"] == "rgb"
    assert with_network_of_file(node(weights=str(path), color="bgr"))["color"] == "bgr"
    path = published(golden, tmp_path, "insightface", "mbf")
    with pytest.raises(InputError, match=r"\(insightface\) takes RGB, and backbone.color is bgr"):
        with_network_of_file(node(weights=str(path), color="bgr"))


def test_dropout_is_that_of_the_recipe(golden: Path, tmp_path: Path) -> None:
    path = published(golden, tmp_path, "adaface", "ir_18")
    assert with_network_of_file(node(weights=str(path)))["dropout"] == 0.4
    assert with_network_of_file(node(weights=str(path), dropout=0.1))["dropout"] == 0.1


def test_the_family_can_be_said(golden: Path, tmp_path: Path) -> None:
    state = filled(shapes_of(golden, "magface", "iresnet18"))
    torch.save(state, tmp_path / "net.pth")
    weights = str(tmp_path / "net.pth")
    assert with_network_of_file(node(weights=weights))["color"] == "rgb"
    assert with_network_of_file(node(weights=weights, family="magface"))["color"] == "bgr"
    with pytest.raises(InputError, match="does not hold a network of adaface"):
        with_network_of_file(node(weights=weights, family="adaface"))
    # Named like the file's, ours keep what was said of them.
    named = compose("backbone=iresnet18", f"backbone.weights={weights}")["backbone"]
    assert with_network_of_file(named) == named


def test_an_exported_folder_says_what_it_is(tiny_run: list[str], tmp_path: Path) -> None:
    """Its weights have AdaFace's names, but it was trained here and otherwise."""
    shape = "backbone.model={blocks: [1, 1, 1, 1]}"
    first = ["backbone=timm", "backbone.name=ir", shape, "backbone.dropout=0"]
    train(compose(*tiny_run, *first, *STILL, run_dir=tmp_path / "first"))
    file = open_model(tmp_path / "first", checkpoint="last")
    write_shared_folder(file, tmp_path / "shared", FolderOptions(license="mit"))
    weights = tmp_path / "shared" / "model.safetensors"
    second = ["backbone=pretrained", f"backbone.weights={weights}"]
    train(compose(*tiny_run, *second, *STILL, run_dir=tmp_path / "second"))
    found = open_model(tmp_path / "second", checkpoint="last")
    assert found.color == "rgb"
    one, two = (dict(f.build().named_parameters()) for f in (file, found))
    assert all(torch.allclose(one[name], value, atol=1e-6) for name, value in two.items())


def test_our_own_checkpoint_says_what_it_is(
    tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ["backbone=miniresnet8_pool", "backbone.color=bgr", "++backbone.mean=[0,0,0]",
             "++backbone.std=[255,255,255]"]  # fmt: skip
    train(compose(*tiny_run, *first, *STILL, run_dir=tmp_path / "first"))
    path = tmp_path / "first" / "checkpoints" / "last.ckpt"
    second = ["backbone=pretrained", f"backbone.weights={path}"]
    train(compose(*tiny_run, *second, *STILL, run_dir=tmp_path / "second"))
    kept = marginface.load(tmp_path / "second", checkpoint="last", device="cpu").description
    assert kept.backbone["name"] == "miniresnet8_pool"
    assert (kept.input.color, kept.input.mean, kept.input.std) == ("bgr", (0,) * 3, (255,) * 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weights": None}, "backbone.name=pretrained needs a file: add backbone.weights=FILE"),
        ({"image_size": 160}, r"has image_size=112, and backbone.image_size is 160; set "),
        ({"mean": [1.0, 1.0, 1.0]}, r"set backbone.mean=\[127.5,127.5,127.5\]"),
        ({"family": "evolve", "color": "bgr"}, "does not hold a network of evolve"),
        ({"embedding_size": 256}, "has embedding_size=512, and backbone.embedding_size is 256"),
        ({"pool": "flatten"}, "says which network it holds; leave it out"),
        ({"weights": "hf_hub:a/b", "name": "iresnet18"}, "can neither be reached"),
        ({"weights": 5}, "backbone.weights"),
        ({"color": "gbr"}, "backbone.color"),
        ({"family": "facenet"}, "does not hold a network of facenet"),
    ],
)
def test_what_disagrees(
    golden: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    path = published(golden, tmp_path, "adaface", "ir_18")
    with pytest.raises(InputError, match=words):
        with_network_of_file(node(weights=str(path)) | changes)


def test_arguments_are_added(golden: Path, tmp_path: Path) -> None:
    path = published(golden, tmp_path, "insightface", "vit_t_dp005_mask0")
    found = with_network_of_file(node(weights=str(path), model={"drop_path_rate": 0.2}))
    assert found["model"]["drop_path_rate"] == 0.2
    assert found["model"]["depth"] == 12
    bogus = with_network_of_file(node(weights=str(path), model={"bogus": 3}))
    with pytest.raises(InputError, match="does not take .*bogus"):
        create_backbone(**network_settings(bogus))
    config = compose("backbone=pretrained", f"backbone.weights={path}", "backbone.dropout=x")
    assert "backbone.dropout" in "\n".join(train_problems(config))


def test_bare_weights_with_images_of_their_own(tmp_path: Path) -> None:
    """What a node of evaluate.py says of them counts."""
    settings = compose("backbone=miniresnet8_half", "++backbone.mean=[0,0,0]",
                       "++backbone.std=[255,255,255]")["backbone"]  # fmt: skip
    torch.save(create_backbone("miniresnet8_half").state_dict(), tmp_path / "net.pth")
    file = open_model(tmp_path / "net.pth", settings)
    assert (file.input.mean, file.input.std) == ((0,) * 3, (255,) * 3)
    assert file.build() is not None


def test_a_training_needs_the_file(tiny_run: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a file: add backbone.weights=FILE"):
        train(compose(*tiny_run, "backbone=pretrained", run_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_files_that_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.ckpt").mkdir()
    with pytest.raises(InputError, match="is a folder; name the file"):
        with_network_of_file(node(weights=str(tmp_path / "run.ckpt")))
    torch.save({"marginface": {"description": {"config": {}}}}, tmp_path / "half.ckpt")
    with pytest.raises(InputError, match="does not say which backbone"):
        with_network_of_file(node(weights=str(tmp_path / "half.ckpt")))
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="of no known project; name its network"):
        with_network_of_file(node(weights=str(tmp_path / "other.pth")))
    with pytest.raises(MissingInputError, match="no weights file"):
        with_network_of_file(node(weights=str(tmp_path / "none.pth")))
    config = compose("backbone=pretrained", f"backbone.weights={tmp_path}/none.pth")
    assert "no weights file" in "\n".join(train_problems(config))


@pytest.mark.parametrize("key", ["mean", "std"])
def test_three_numbers(key: str) -> None:
    config = compose(f"++backbone.{key}=[0,1]")
    assert f"backbone.{key} must be three numbers" in "\n".join(train_problems(config))
    config = compose("++backbone.std=[0,1,1]")
    assert "above 0" in "\n".join(train_problems(config))
