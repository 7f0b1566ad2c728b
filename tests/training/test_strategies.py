"""Class centers on several processes, in whole runs: same losses, any number continues."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers.runs import compose, kill_after, losses
from marginface.training.run import train
from marginface.utils.errors import InputError

DDP = ["class_parallel", "ddp_gloo"]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def vit_run(tiny_run: list[str]) -> list[str]:
    # Enough identities that rounding, which AdamW amplifies, stays rounding.
    settings = ["backbone=vit_tiny", "backbone.image_size=32", "data.batch_size=12"]
    settings += ["data.dataset.identities=40", "data.dataset.images_per_identity=10"]
    settings += ["optimizer=adamw", "optimizer.lr=1e-3", "scheduler=constant"]
    return [*tiny_run, *settings, "callbacks.checkpoint.every_n_train_steps=3"]


def trainer(name: str, devices: int) -> list[str]:
    return [f"trainer={name}", "trainer.accelerator=cpu", f"trainer.devices={devices}"]


@pytest.fixture(scope="module")
def uninterrupted(vit_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(compose(*vit_run, "trainer.max_steps=20", run_dir=folder))
    return folder


def assert_same(found: Path, expected: Path, rel: float = 1e-4) -> None:
    found_losses, expected_losses = losses(found), losses(expected)
    assert list(found_losses) == list(expected_losses)
    assert list(found_losses.values()) == pytest.approx(list(expected_losses.values()), rel=rel)


@pytest.mark.slow
def test_two_shards_train_the_same_model(
    vit_run: list[str], uninterrupted: Path, tmp_path: Path, command: Command
) -> None:
    # The untrained network is verified first: that must not overwrite shards with each other.
    options = [*trainer("class_parallel", 2), "trainer.max_steps=20", "validate_untrained=true"]
    done = command("train.py", *vit_run, *options, f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path, uninterrupted)
    assert "classifier: about" in done.stdout
    stored = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["state_dict"]["head.centers.weight"].shape == (35, 512)
    whole = torch.load(uninterrupted / "checkpoints" / "last.ckpt", weights_only=True)
    torch.testing.assert_close(
        stored["state_dict"]["head.centers.weight"],
        whole["state_dict"]["head.centers.weight"],
        rtol=0,
        atol=1e-4,
    )


@pytest.mark.slow
def test_killed_runs_go_on_with_other_processes(
    vit_run: list[str], uninterrupted: Path, tmp_path: Path, command: Command
) -> None:
    """1 -> 2 -> 1 -> 3 processes, SIGKILL mid-epoch; whole, apart, in shards, then whole again."""
    apart = "classifier.separate_file_above_mib=0.001"
    for killed_at, options in (
        (4, trainer("class_parallel", 1)),
        (9, [*trainer("class_parallel", 2), apart]),
        (14, [*trainer("cpu", 1), apart]),
    ):
        kill_after(killed_at, [*vit_run, *options, "trainer.max_steps=20"], tmp_path)
        checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["global_step"] < 20, "killed too late to show anything"
    last = [*vit_run, *trainer("class_parallel", 3), "trainer.max_steps=20"]
    done = command("train.py", *last, f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout
    assert_same(tmp_path, uninterrupted)
    assert not list((tmp_path / "checkpoints").glob("last.ckpt.head-*")), "old ones go"


@pytest.mark.long
def test_the_backbone_on_many_processes_too(
    vit_run: list[str], uninterrupted: Path, tmp_path: Path, command: Command
) -> None:
    """One process begins, FSDP2 continues, twice."""
    train(compose(*vit_run, "trainer.max_steps=5", run_dir=tmp_path))
    first = [*vit_run, *trainer("fsdp2", 2), "trainer.max_steps=12"]
    done = command("train.py", *first, f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    last = [*vit_run, *trainer("fsdp2", 2), "trainer.max_steps=20"]
    done = command("train.py", *last, f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy", ["fsdp2", *(pytest.param(s, marks=pytest.mark.long) for s in DDP)]
)
def test_what_is_verified_is_what_is_stored(
    strategy: str, tiny_run: list[str], tmp_path: Path, command: Command
) -> None:
    """Batch normalization has other running statistics in each process; one of them counts."""
    settings = [*tiny_run, "trainer.max_steps=11", "optimizer.lr=0.01"]
    done = command("train.py", *settings, *trainer(strategy, 2), f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    before = json.loads((tmp_path / "result.json").read_text())
    train(compose(*settings, run_dir=tmp_path))  # nothing is left but to verify
    after = json.loads((tmp_path / "result.json").read_text())
    keys = [key for key in before if key.startswith("val/heldout/")]
    assert len(keys) > 3
    assert [after[key] for key in keys] == pytest.approx([before[key] for key in keys], abs=1e-4)


@pytest.mark.long
def test_sampled_shards_train_like_one_process(
    vit_run: list[str], tmp_path: Path, command: Command
) -> None:
    # Half of so few classes is too few for AdamW not to amplify rounding, so in float64.
    sampled = [*vit_run, "classifier.sample_rate=0.5", "trainer.max_steps=12"]
    sampled += ["trainer.precision=64-true"]
    train(compose(*sampled, run_dir=tmp_path / "one"))
    options = [*trainer("class_parallel", 2), "trainer.max_steps=12"]
    done = command("train.py", *sampled, *options, f"hydra.run.dir={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "two", tmp_path / "one", rel=1e-9)
    assert "sample_rate 0.5: 18 of 35 classes a step" in done.stdout


def test_sampling_on_processes_that_share_no_classes(vit_run: list[str], tmp_path: Path) -> None:
    options = ["classifier.sample_rate=0.5", "trainer=ddp_gloo", "trainer.devices=2"]
    with pytest.raises(InputError, match="on 2 processes needs trainer=class_parallel"):
        train(compose(*vit_run, *options, run_dir=tmp_path))
    assert not list(tmp_path.iterdir())
