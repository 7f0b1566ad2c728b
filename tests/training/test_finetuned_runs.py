"""Every way of fine-tuning goes on where it stopped, and is the same on two processes."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.runs import compose, kill_after, losses, rows
from marginface.runs.checkpoint_file import read_checkpoint
from marginface.training.run import train

STEPS, STOPPED = 13, 5  # an epoch has 11
WAYS = {
    "ema": ["averaging=ema", "averaging.decay=0.9"],
    "lora": ["finetune=lora", "finetune.rank=2", "backbone.weights={old}"],
    "adapters": [
        "finetune=lora",
        "finetune.save=adapters",
        "backbone.weights={old}",
        "averaging=ema",
    ],
    "distillation": ["distillation=teacher", "distillation.teacher={old}"],
    "teacher_alone": [
        "distillation=teacher",
        "distillation.teacher={old}",
        "distillation.margin_weight=0",
    ],
    "last_stages": ["finetune=last_stages", "backbone.weights={old}"],
    "head_first": ["finetune=head_first", "backbone.weights={old}"],
    "layer_decay": ["finetune=layer_decay", "backbone.weights={old}", "averaging=ema"],
    "compatible": ["++finetune.compatible_with={old}"],
    "class_means": ["++head.weights=class_means", "backbone.weights={old}"],
}


def _long_but(*names: str) -> list[Any]:
    """All ways; those that are not named only by `make test-long`."""
    return [n if n in names else pytest.param(n, marks=pytest.mark.long) for n in WAYS]


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def old(tiny_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    train(compose(*tiny_run, "trainer.max_steps=3", "seed=1", "data.seed=2048", run_dir=folder))
    return folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def old_vit(tiny_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old_vit")
    train(compose(*tiny_run, *VIT, "trainer.max_steps=3", "seed=1", run_dir=folder))
    return folder / "checkpoints" / "last.ckpt"


def way(name: str, old: Path) -> list[str]:
    if "lora" in "".join(WAYS[name]):
        pytest.importorskip("peft")
    return [setting.format(old=old) for setting in WAYS[name]]


def numbers(folder: Path) -> list[dict[str, str]]:
    # Without the validation at the end of the part that was stopped, and what the clock decides.
    return [{k: v for k, v in row.items() if k.startswith("train/")} for row in rows(folder)]


def check_same(whole: Path, parts: Path) -> None:
    assert numbers(whole) == numbers(parts)
    states = [read_checkpoint(f / "checkpoints" / "last.ckpt") for f in (whole, parts)]
    for part in ("state_dict", "current_model_state"):
        first, second = (state.get(part, {}) for state in states)
        assert first.keys() == second.keys()
        assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("name", _long_but("ema", "adapters"))
def test_stopped_within_an_epoch(tiny_run: list[str], old: Path, tmp_path: Path, name: str) -> None:
    settings = [*tiny_run, *way(name, old), "scheduler=constant", "optimizer.lr=0.01"]
    for folder, steps in (("whole", STEPS), ("parts", STOPPED), ("parts", STEPS)):
        train(compose(*settings, f"trainer.max_steps={steps}", run_dir=tmp_path / folder))
    assert len(losses(tmp_path / "whole")) == STEPS
    check_same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.parametrize("name", _long_but("adapters"))
def test_killed_within_an_epoch(tiny_run: list[str], old: Path, tmp_path: Path, name: str) -> None:
    every = "callbacks.checkpoint.every_n_train_steps=4"
    settings = [*tiny_run, *way(name, old), every, f"trainer.max_steps={STEPS}"]
    train(compose(*settings, run_dir=tmp_path / "whole"))
    kill_after(STOPPED, [s.removeprefix("++") for s in settings], tmp_path / "parts")
    assert len(rows(tmp_path / "parts")) < STEPS, "killed too late to show anything"
    train(compose(*settings, run_dir=tmp_path / "parts"))
    check_same(tmp_path / "whole", tmp_path / "parts")


VIT = ["backbone=vit_tiny", "backbone.image_size=32", "optimizer=adamw", "optimizer.lr=2e-4",
       "data.batch_size=12", "data.dataset.identities=40",
       "data.dataset.images_per_identity=10"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", _long_but("teacher_alone"))
def test_two_processes_train_the_same(
    tiny_run: list[str], old_vit: Path, tmp_path: Path, command: Command, name: str
) -> None:
    settings = [*tiny_run, *VIT, *way(name, old_vit), "trainer.max_steps=12"]
    if name == "head_first":
        settings.append("trainer.limit_train_batches=6")  # it rests in the first half
    train(compose(*settings, run_dir=tmp_path / "one"))
    arguments = [setting.removeprefix("++") for setting in settings]
    gloo = ["trainer=ddp_gloo", "trainer.devices=2", f"hydra.run.dir={tmp_path / 'two'}"]
    done = command("train.py", *[a for a in arguments if a != "trainer=cpu"], *gloo)
    assert done.returncode == 0, done.stderr
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 12
    assert list(two.values()) == pytest.approx(list(one.values()), rel=1e-4)
    states = [read_checkpoint(tmp_path / f / "checkpoints" / "last.ckpt") for f in ("one", "two")]
    first, second = (state["state_dict"] for state in states)
    for key, value in first.items():
        assert torch.allclose(second[key], value, rtol=1e-2, atol=1e-3), key
