"""Stopped, killed, out of disk: what a run leaves behind and what it says."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

from helpers.paths import ROOT
from helpers.runs import compose, has_rows, losses, rows, started, wait_until
from marginface.training.checkpoints.writers import AtomicCheckpointIO
from marginface.training.module import FaceRecognizer
from marginface.training.run import train
from marginface.utils.errors import PreemptedError

ENDLESS = ["trainer.max_epochs=10000", "callbacks.checkpoint.every_n_train_steps=2"]
THREE = ["trainer=ddp_gloo", "trainer.devices=3", *ENDLESS]


def children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_writes_a_checkpoint_and_the_run_goes_on(
    tiny_run: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    run = [*tiny_run, "trainer.max_steps=9", "callbacks.checkpoint.every_n_train_steps=100"]
    run += ["scheduler=constant"]

    class Interrupting:
        """Sends this process the signal while step 4 is computed."""

        calls = 0

        def __call__(self, *arguments: object) -> None:
            self.calls += 1
            if self.calls == 5:
                os.kill(os.getpid(), number)

    config = compose(*run, run_dir=tmp_path)
    before = signal.getsignal(number)
    hook = torch.nn.modules.module.register_module_forward_pre_hook(_at_heads(Interrupting()))
    try:
        with pytest.raises(PreemptedError) as stop:
            train(config)
    finally:
        hook.remove()
    assert stop.value.exit_code == 75
    assert signal.getsignal(number) == before
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 5 == len(rows(tmp_path))
    train(config)
    train(compose(*run, run_dir=tmp_path / "whole"))
    assert losses(tmp_path) == losses(tmp_path / "whole")


@pytest.mark.parametrize("when", ["on_fit_start", "on_run_start"])
def test_a_signal_before_the_first_step(
    when: str, tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the head begins, which may take minutes, and after Lightning has set its handlers."""
    owner = FaceRecognizer if when == "on_fit_start" else _FitLoop
    before = getattr(owner, when)

    def interrupted(self: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        before(self)

    def by_lightning(*_: Any) -> None:
        raise AssertionError("it would send a message that the other processes do not expect")

    monkeypatch.setattr(owner, when, interrupted)
    monkeypatch.setattr(_SignalConnector, "_sigterm_notifier_fn", by_lightning)
    with pytest.raises(PreemptedError, match="stopped by SIGTERM"):
        train(compose(*tiny_run, "trainer.max_steps=9", run_dir=tmp_path))
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 1


def _at_heads(action):  # type: ignore[no-untyped-def]
    from marginface.heads import MarginHead

    return lambda module, arguments: action() if isinstance(module, MarginHead) else None


@pytest.mark.slow
@pytest.mark.parametrize("who", ["first", pytest.param("last", marks=pytest.mark.long)])
def test_a_signal_at_any_process_stops_all(tiny_run: list[str], tmp_path: Path, who: str) -> None:
    with started([*tiny_run, *THREE], tmp_path) as process:
        wait_until(has_rows(tmp_path, 3), process)
        target = process.pid if who == "first" else children(process.pid)[-1]
        os.kill(target, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "SIGTERM: stopped after" in out
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == len(rows(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("who", [2, pytest.param(0, marks=pytest.mark.long)])
def test_a_process_that_dies_ends_the_others(tiny_run: list[str], tmp_path: Path, who: int) -> None:
    with started([*tiny_run, *THREE], tmp_path) as process:
        wait_until(has_rows(tmp_path, 3), process)
        others = children(process.pid)
        begin = time.monotonic()
        os.kill(process.pid if who == 0 else others[who - 1], signal.SIGKILL)
        _, err = process.communicate(timeout=60)  # until the last of them has closed the pipe
        assert time.monotonic() - begin < 60
    assert f"process {who} (rank {who}, pid" in err
    assert "SIGKILL" in err if who else "is gone" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_killed_at_random_moments(tiny_run: list[str], tmp_path: Path) -> None:
    """There is a whole checkpoint each time, and it never goes back."""
    moments = random.Random(0)
    run = [*tiny_run, *ENDLESS, "callbacks.checkpoint.every_n_train_steps=1"]
    run += ["classifier.separate_file_above_mib=0.001"]
    step = 0
    for _ in range(int(os.environ.get("MARGINFACE_KILLS", "4"))):
        with started(run, tmp_path) as process:
            wait_until(has_rows(tmp_path, step + 1), process)
            time.sleep(moments.uniform(0, 1))
        saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
        assert saved["global_step"] >= step
        step = saved["global_step"]
        folder = tmp_path / "checkpoints" / saved["marginface"]["head"]["folder"]
        assert (folder / ".metadata").is_file()
    train(compose(*run, f"trainer.max_steps={step + 1}", run_dir=tmp_path))
    assert list(losses(tmp_path)) == list(range(step + 1))


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1, "weight": torch.ones(10)}, path)
    code = (
        "import resource, signal, sys, torch; from pathlib import Path;"
        "from marginface.training.checkpoints.writers import AtomicCheckpointIO;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "new = {'step': 2, 'weight': torch.ones(10**6)};"
        "AtomicCheckpointIO().save_checkpoint(new, sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode != 0
    assert "the checkpoint before it is still there" in done.stderr
    assert torch.load(path, weights_only=True)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"], "nothing half-written stays"


@pytest.mark.slow
def test_torchrun_has_one_run_folder_and_the_same_losses(
    tiny_run: list[str], tmp_path: Path
) -> None:
    vit = [*tiny_run, "backbone=vit_tiny", "backbone.image_size=32", "data.batch_size=12"]
    vit += ["data.dataset.identities=40", "data.dataset.images_per_identity=10"]
    vit += ["optimizer=adamw", "optimizer.lr=1e-3", "trainer.max_steps=6", "scheduler=constant"]
    two = [*vit, "trainer=ddp_gloo", "trainer.devices=2", "trainer.max_steps=6"]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         "train.py", *two, f"paths.log_dir={tmp_path / 'logs'}"],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "logs" / "runs").glob("*/*")
    with started(two, tmp_path / "lightning") as process:
        process.communicate(timeout=120)
    assert process.returncode == 0
    assert losses(folder) == losses(tmp_path / "lightning")
