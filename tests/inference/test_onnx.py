"""ONNX files as networks."""

from pathlib import Path

import onnx
import pytest
import torch

from helpers.benchmark_sets import write_tinyface
from helpers.evaluations import settings
from helpers.small_models import write_onnx
from marginface.evaluation.run import evaluate
from marginface.inference import onnx as onnx_network
from marginface.inference.embedder import Embedder
from marginface.inference.open_model import open_model
from marginface.utils.errors import InputError


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_onnx(tmp_path: Path, batch: int | str) -> None:
    write_tinyface(tmp_path / "tinyface")
    weight = write_onnx(tmp_path / "net.onnx", batch)
    model = open_model(tmp_path / "net.onnx")
    assert (model.name, model.image_size, model.color) == ("net", 32, "rgb")
    images = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)
    pooled = torch.nn.functional.avg_pool2d(images.float() / 127.5 - 1, 8).flatten(1)
    flipped = torch.nn.functional.avg_pool2d(images.flip(3).float() / 127.5 - 1, 8).flatten(1)
    found = Embedder(model.build(), 32, "rgb", devices=["cpu", "cpu"])(images)
    torch.testing.assert_close(found, (pooled + flipped) @ torch.from_numpy(weight))
    result = evaluate(
        settings(
            f"checkpoint={tmp_path / 'net.onnx'}", "benchmark=[tinyface]",
            f"benchmark.tinyface.root={tmp_path / 'tinyface'}", "benchmark.tinyface.bootstrap=3",
            folder=tmp_path,
        )
    )  # fmt: skip
    assert 0 <= result["tinyface/rank1"] <= 1


def test_faults_of_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match="bad.onnx is not a readable ONNX file"):
        open_model(tmp_path / "bad.onnx")
    write_onnx(tmp_path / "any.onnx", 1, "side")
    with pytest.raises(InputError, match=r"of \(batch, 3, S, S\) with a fixed S"):
        open_model(tmp_path / "any.onnx")
    write_onnx(tmp_path / "net.onnx", 1)
    with pytest.raises(InputError, match="states which network it holds"):
        open_model(tmp_path / "net.onnx", {"name": "iresnet18"})
    graph = onnx.load(tmp_path / "net.onnx")
    onnx.save(graph, tmp_path / "big.onnx", save_as_external_data=True, size_threshold=0,
              location="big.weights")  # fmt: skip
    before = open_model(tmp_path / "big.onnx").fingerprint()
    weights = tmp_path / "big.weights"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    assert open_model(tmp_path / "big.onnx").fingerprint() != before
    config = settings(
        f"checkpoint={tmp_path / 'net.onnx'}", "precision=bf16-mixed", "benchmark=[tinyface]",
        "benchmark.tinyface.root=x", folder=tmp_path,
    )  # fmt: skip
    with pytest.raises(InputError, match="an ONNX graph has its own precision"):
        evaluate(config)

    def missing(package: str, *, extra: str) -> None:
        raise InputError(f"this needs the package {package}; pip install 'marginface[{extra}]'")

    monkeypatch.setattr(onnx_network, "require_package", missing)
    with pytest.raises(InputError, match=r"onnxruntime.*marginface\[export\]"):
        open_model(tmp_path / "net.onnx")
