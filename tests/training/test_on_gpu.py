"""Runs on a GPU: no waits in the steady state, both precisions, resuming, two processes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from safetensors.torch import load_file

from helpers.commands import marginface
from helpers.evaluations import settings as settings_of_evaluation
from helpers.paths import ROOT
from helpers.runs import compose, kill_after, losses
from marginface.evaluation.run import evaluate
from marginface.heads import list_heads
from marginface.training import train
from marginface.training.module import FaceRecognizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


@pytest.fixture
def gpu_run(tiny_run: list[str]) -> list[str]:
    return [*(setting for setting in tiny_run if setting != "trainer=cpu"), "trainer=gpu"]


@pytest.mark.parametrize(
    "changes",
    [
        ["augmentation=strong"],
        ["augmentation=vit"],
        ["classifier.sample_rate=0.9", "data.num_workers=1"],
        ["head=dynarcface", "averaging=ema"],
        ["+backbone.mean=[128,128,128]", "classifier.kernel=torch", "classifier.chunk_mib=0.01"],
    ],
    ids=" ".join,
)
def test_the_steady_state_does_not_wait(
    changes: list[str], gpu_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = FaceRecognizer.on_train_batch_start
    checked: list[int] = []

    def strict(module: FaceRecognizer, batch: Any, batch_idx: int) -> None:
        step = module.trainer.global_step
        torch.cuda.set_sync_debug_mode("error" if 5 <= step < 9 else "default")
        checked.append(step)
        begin(module, batch, batch_idx)

    teardown = SingleDeviceStrategy.teardown

    def lenient(strategy: SingleDeviceStrategy) -> None:  # after an error, too
        torch.cuda.set_sync_debug_mode("default")
        teardown(strategy)

    monkeypatch.setattr(FaceRecognizer, "on_train_batch_start", strict)
    monkeypatch.setattr(SingleDeviceStrategy, "teardown", lenient)
    settings = [*gpu_run, "trainer.max_steps=12", "trainer.log_every_n_steps=100"]
    settings += [*changes, "data.val_identities=0", "trainer.max_epochs=100"]
    try:
        train(compose(*settings, run_dir=tmp_path))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert {5, 6, 7, 8} <= set(checked)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("name", list_heads())
def test_losses_stay_finite(name: str, precision: str, gpu_run: list[str], tmp_path: Path) -> None:
    settings = [*gpu_run, f"head={name}", f"trainer.precision={precision}", "trainer.max_steps=20"]
    settings += ["data.val_identities=0", "trainer.max_epochs=100"]
    train(compose(*settings, run_dir=tmp_path))
    assert len(losses(tmp_path)) == 20


def test_a_resumed_run_is_the_same(gpu_run: list[str], tmp_path: Path) -> None:
    """But for the order in which cuDNN's kernels add."""
    settings = [*gpu_run, "trainer.max_epochs=100", "data.val_identities=0"]
    whole = [*settings, "trainer.max_steps=8"]
    train(compose(*whole, run_dir=tmp_path / "whole"))
    train(compose(*settings, "trainer.max_steps=5", run_dir=tmp_path / "parts"))
    train(compose(*whole, run_dir=tmp_path / "parts"))
    first, second = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert first.keys() == second.keys()
    for step, loss in first.items():
        assert second[step] == pytest.approx(loss, rel=2e-3), step


def test_a_killed_run_goes_on_is_evaluated_and_gives_its_centers(
    gpu_run: list[str], sets: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    settings = [*gpu_run, "trainer.max_epochs=100", "trainer.max_steps=300", "data.num_workers=1"]
    settings += ["callbacks.checkpoint.every_n_train_steps=4", "data.val_identities=0"]
    kill_after(6, settings, run, on_gpu=True)
    before = losses(run)
    assert len(before) < 300, "killed too late to show anything"
    train(compose(*settings, run_dir=run))
    after = losses(run)
    assert list(after) == list(range(300))
    # What was trained again since the checkpoint is what it was.
    assert [after[step] for step in before] == pytest.approx(list(before.values()), rel=2e-3)
    found = evaluate(
        settings_of_evaluation(
            f"run={run}", "checkpoint=last", "benchmark=custom_pairs", "cache=false",
            f"benchmark.custom_pairs.root={sets / 'pairs'}", folder=tmp_path,
        )
    )  # fmt: skip
    assert found
    target = tmp_path / "centers.safetensors"
    assert marginface("export-head", str(run), str(target)).exit_code == 0
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu")
    centers = kept["state_dict"]["head.centers.weight"]
    assert torch.equal(load_file(target)["head.weight"], centers)


TWO = {
    "class_parallel": ["trainer=class_parallel"],
    "ddp": ["trainer=ddp_gloo"],
}


def train_on_two_nodes(folder: Path, accelerator: str, *settings: str) -> None:
    """Two processes that share one card, each a node of its own to Lightning."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = [f"trainer.accelerator={accelerator}", "trainer.devices=1", "trainer.num_nodes=2"]
    place += ["trainer.strategy.process_group_backend=gloo", f"hydra.run.dir={folder}"]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
    processes = [
        subprocess.Popen(
            [sys.executable, "train.py", *settings, *place],
            cwd=ROOT,
            env=os.environ | group | {"NODE_RANK": str(node)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in range(2)
    ]
    try:
        for process in processes:
            output, _ = process.communicate(timeout=150)
            assert process.returncode == 0, output[-3000:]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("trainer", TWO)
def test_two_processes_on_one_card(trainer: str, gpu_run: list[str], tmp_path: Path) -> None:
    settings = [s for s in gpu_run if s != "trainer=gpu"]
    settings += ["trainer.precision=32-true", "trainer.max_steps=4", "data.val_identities=0"]
    settings += ["backbone=vit_tiny", "backbone.image_size=32", "optimizer=adamw"]
    train(compose("trainer=gpu", *settings, run_dir=tmp_path / "one"))
    train_on_two_nodes(tmp_path / "two", "gpu", *TWO[trainer], *settings)
    first, second = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert first.keys() == second.keys()
    for step, loss in first.items():
        assert second[step] == pytest.approx(loss, rel=2e-3), step


def test_the_kernels_are_named_at_the_start(
    gpu_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(compose(*gpu_run, "trainer.max_steps=2", run_dir=tmp_path))
    printed = capsys.readouterr().out
    assert "classifier: GPU kernels, products in float16" in printed
    assert "float32 products of the backbone: high, cudnn.benchmark on" in printed
    assert json.loads((tmp_path / "result.json").read_text())
