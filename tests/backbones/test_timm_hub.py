"""timm's networks on the Hub, from a cache folder that is made here, without a network."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from helpers.runs import compose
from marginface.inference.embedder import load_embedder
from marginface.runs.checkpoint_file import read_checkpoint
from marginface.training.config import train_problems

NAME = "hf_hub:somebody/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of the Hub's client with a network of timm in it."""
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=512)
    repository = tmp_path / "hub" / "hub" / "models--somebody--tiny"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    save_file(network.state_dict(), snapshot / "model.safetensors")
    about = {
        "architecture": "resnet10t", "num_classes": 512, "num_features": 512,
        "model_args": {"drop_path_rate": 0.1},
        "pretrained_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.5, 0.25, 0.5], "classifier": "fc",
                           "first_conv": "conv1.0", "num_classes": 512},
    }  # fmt: skip
    (snapshot / "config.json").write_text(json.dumps(about))
    return tmp_path / "hub"


@pytest.mark.parametrize("pool", ["model", pytest.param("classifier", marks=pytest.mark.long)])
def test_a_run_from_the_cache(
    cache: Path, tiny_run: list[str], tmp_path: Path, command: Command, pool: str
) -> None:
    settings = ["backbone=timm", f"backbone.name={NAME}", "backbone.pretrained=true",
                f"backbone.pool={pool}", "optimizer.lr=1e-30", "trainer.max_steps=1"]  # fmt: skip
    run = tmp_path / "run"
    done = command(
        "train.py", *tiny_run, *settings, f"hydra.run.dir={run}",
        HF_HOME=str(cache), HF_HUB_OFFLINE="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    path = run / "checkpoints" / "last.ckpt"
    kept = read_checkpoint(path)["marginface"]["description"]["config"]["backbone"]
    assert kept["name"] == "resnet10t"
    assert kept["model"] == {"drop_path_rate": 0.1}
    assert kept["mean"] == pytest.approx([102, 127.5, 153])
    assert kept["std"] == pytest.approx([127.5, 63.75, 127.5])
    # Opening it needs neither the Hub nor the cache.
    network = load_embedder(path).networks[0]
    inner = network.model if pool == "model" else network
    torch.manual_seed(0)
    wanted = timm.create_model("resnet10t", num_classes=512)
    for name, value in wanted.named_parameters():
        if not name.startswith("fc.") or pool == "classifier":
            assert torch.allclose(inner.get_parameter(name), value, atol=1e-6), name


def test_without_network_and_cache(tmp_path: Path, tiny_run: list[str], command: Command) -> None:
    settings = ["backbone=timm", f"backbone.name={NAME}", "backbone.pretrained=true"]
    done = command(
        "train.py", *tiny_run, *settings, f"hydra.run.dir={tmp_path}/run",
        HF_HOME=str(tmp_path / "empty"), HF_HUB_OFFLINE="1",
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert f"backbone.name={NAME} can neither be reached nor is in the local cache" in done.stderr


def test_it_is_pretrained() -> None:
    found = "\n".join(train_problems(compose("backbone=timm", f"backbone.name={NAME}")))
    assert "has weights on the Hub: add backbone.pretrained=true" in found
