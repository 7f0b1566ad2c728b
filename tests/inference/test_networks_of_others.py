"""Files of other projects in every command that opens a model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import marginface
from helpers.evaluations import settings
from helpers.foreign_files import facts, file_of, filled, shapes_of
from marginface.backbones import create_backbone, load_pretrained
from marginface.evaluation.run import evaluate
from marginface.inference.open_model import open_model
from marginface.utils.errors import InputError


@pytest.fixture
def adaface(golden: Path, tmp_path: Path) -> Path:
    """An AdaFace checkpoint as it is published."""
    state = filled(shapes_of(golden, "adaface", "ir_18"))
    return file_of(state, facts(golden, "adaface")["checkpoints"][0], tmp_path / "adaface.ckpt")


@pytest.mark.slow
def test_evaluation_says_bgr_and_why(
    adaface: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The pictures of the set are of another size.
    wanted = ["benchmark=custom_pairs", f"benchmark.custom_pairs.root={sets / 'pairs'}",
              "benchmark.custom_pairs.bootstrap=5"]  # fmt: skip
    cache = f"paths.cache_dir={tmp_path}/cache"
    evaluate(settings(f"checkpoint={adaface}", *wanted, cache, folder=tmp_path))
    printed = capsys.readouterr().out
    assert "a network of adaface, because its names begin with input_layer.0.weight" in printed
    assert "images of 112 pixels in BGR, mean 127.5" in printed
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())["facts"]
    assert found["color"] == "bgr"
    assert found["recognized"].startswith("adaface, because its names begin with")
    assert 0 < found["latency_ms_p50"] <= found["latency_ms_p95"]
    assert found["bytes_per_template"] == 4 * 512
    # Embeddings of the cache say nothing of the time they took.
    evaluate(settings(f"checkpoint={adaface}", *wanted, cache, folder=tmp_path / "again"))
    again = json.loads((tmp_path / "again" / "out" / "evaluation.json").read_text())["facts"]
    assert "latency_ms_p50" not in again
    assert again["latency"].startswith("not measured")


def test_a_model_embeds_as_the_network_does(adaface: Path, golden: Path) -> None:
    model = marginface.load(adaface, device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    network, _ = load_pretrained(adaface)

    def embed(rgb: np.ndarray) -> torch.Tensor:
        bgr = torch.from_numpy(rgb[..., ::-1].copy()).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            return network((bgr / 255 - 0.5) / 0.5)

    both = embed(images) + embed(images[:, :, ::-1])
    wanted = torch.nn.functional.normalize(both, dim=1).numpy()
    assert np.abs(model.embed_aligned(images) - wanted).max() < 1e-5
    assert model.color == "bgr"


def test_magface_takes_images_from_0_to_1(golden: Path, tmp_path: Path) -> None:
    state = filled(shapes_of(golden, "magface", "iresnet18"))
    for number, kind in enumerate(facts(golden, "magface")["checkpoints"]):
        file = open_model(file_of(state, kind, tmp_path / f"{number}.pth"))
        assert (file.name, file.color) == ("magface", "bgr")
        assert file.input.mean == (0, 0, 0)
        assert file.input.std == (255, 255, 255)


def test_an_iresnet_of_any_depth_and_size(tmp_path: Path) -> None:
    network = create_backbone("iresnet", image_size=64, model={"layers": [1, 1, 2, 1]}).eval()
    torch.save({f"module.{k}": v for k, v in network.state_dict().items()}, tmp_path / "net.pth")
    file = open_model(tmp_path / "net.pth")
    assert (file.name, file.image_size) == ("iresnet", 64)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(file.build().eval()(images), network(images))


@pytest.mark.slow
def test_whose_a_file_is_can_be_said(
    golden: Path, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bare IResNet is insightface's, unless the user knows better; a wrong word is refused."""
    torch.save(filled(shapes_of(golden, "magface", "iresnet18")), tmp_path / "net.pth")
    wanted = [f"checkpoint={tmp_path / 'net.pth'}", "benchmark=custom_pairs", "cache=false",
              f"benchmark.custom_pairs.root={sets / 'pairs'}",
              "benchmark.custom_pairs.bootstrap=5"]  # fmt: skip
    evaluate(settings(*wanted, "++backbone.family=magface", folder=tmp_path / "said"))
    assert "a network of magface" in capsys.readouterr().out
    facts = json.loads((tmp_path / "said" / "out" / "evaluation.json").read_text())["facts"]
    assert facts["color"] == "bgr"
    assert facts["recognized"].startswith("magface, because")
    with pytest.raises(InputError, match="does not hold a network of facenet"):
        evaluate(settings(*wanted, "++backbone.family=facenet", folder=tmp_path / "wrong"))


def test_insightfaces_are_ours(golden: Path, tmp_path: Path) -> None:
    state = filled(shapes_of(golden, "magface", "iresnet18"))
    torch.save(state, tmp_path / "backbone.pth")
    file = open_model(tmp_path / "backbone.pth")
    assert file.name == "iresnet18"
    assert file.settings["name"] == "iresnet18"
    assert file.recognized == ""


def test_what_is_said_of_the_images_wins(adaface: Path) -> None:
    assert open_model(adaface, color="rgb").color == "rgb"


@pytest.mark.slow
def test_an_export_takes_what_the_network_takes(adaface: Path, tmp_path: Path) -> None:
    from marginface.inference.export_onnx import ExportOptions, export_onnx

    export_onnx(open_model(adaface), tmp_path / "net.onnx", ExportOptions())
    exported = open_model(tmp_path / "net.onnx")
    assert exported.color == "bgr"
    images = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), np.uint8)
    one, other = (
        marginface.load(path, device="cpu").embed_aligned(images)
        for path in (adaface, tmp_path / "net.onnx")
    )
    assert np.abs(one - other).max() < 1e-5
