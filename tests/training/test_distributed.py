"""Two processes train and verify the same as one."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from helpers.runs import compose, losses, rows
from marginface.config.instantiate import build
from marginface.heads import create_head
from marginface.training.config import check_config
from marginface.training.run import train
from marginface.utils.distributed import (
    gather_rows,
    gather_rows_of_any_number,
    is_distributed,
    mean_over_ranks,
)
from marginface.utils.errors import InputError

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def vit_run(tiny_run: list[str]) -> list[str]:
    # Enough identities that rounding, which AdamW amplifies, stays rounding for 20 steps.
    settings = ["backbone=vit_tiny", "backbone.image_size=32", "data.batch_size=12"]
    settings += ["data.dataset.identities=40", "data.dataset.images_per_identity=10"]
    return [*tiny_run, *settings, "optimizer=adamw", "optimizer.lr=1e-3", "trainer.max_steps=20"]


@pytest.fixture(scope="module")
def one_process(vit_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    train(compose(*vit_run, run_dir=folder))
    return folder


@pytest.mark.slow
def test_two_processes_train_the_same_model(
    vit_run: list[str], one_process: Path, tmp_path: Path, command: Command
) -> None:
    gloo = ["trainer=ddp_gloo", "trainer.devices=2", "trainer.max_steps=20"]
    done = command("train.py", *vit_run, *gloo, f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    two, one = losses(tmp_path), losses(one_process)
    assert list(two) == list(one) == list(range(20))
    assert list(two.values()) == pytest.approx(list(one.values()), rel=1e-4)
    results = [json.loads((p / "result.json").read_text()) for p in (tmp_path, one_process)]
    for key in ("val/heldout/auc", "val/heldout/eer", "train/accuracy", "train/target_angle_p50"):
        assert results[0][key] == pytest.approx(results[1][key], rel=1e-2), key
    info = json.loads((tmp_path / "runinfo.json").read_text())
    assert (info["world_size"], info["devices"]) == (2, 2)


def test_gradients_that_are_sent_in_bfloat16() -> None:
    """Lightning uses such hooks on GPUs only, so here it is asked for the one it would use."""
    config = compose("trainer=ddp_bf16", "logger=csv")
    check_config(config)
    strategy = build(config["trainer"]["strategy"])
    assert strategy._ddp_comm_hook is default_hooks.bf16_compress_hook


@pytest.mark.slow
def test_batch_statistics_train_too(tiny_run: list[str], tmp_path: Path, command: Command) -> None:
    """29 validation images on 2 processes: none lost, none repeated (table_of would assert)."""
    odd = ["data.dataset.images_per_identity=7", "data.val_identities=3", "data.eval_batch_size=4"]
    gloo = ["trainer=ddp_gloo", "trainer.devices=2", "trainer.max_steps=6"]
    odd += ["validate_untrained=true"]
    done = command("train.py", *tiny_run, *odd, *gloo, f"hydra.run.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path)) == 6
    two = json.loads((tmp_path / "result.json").read_text())
    assert "val/heldout/accuracy" in two
    # The same weights, the same pairs: verification of the untrained network to the last digit.
    one = train(compose(*tiny_run, *odd, "trainer.max_steps=1", run_dir=tmp_path / "one"))
    untrained = {key: value for key, value in one.items() if key.startswith("untrained/")}
    assert len(untrained) >= 8
    assert {key: two[key] for key in untrained} == untrained


@pytest.mark.slow
def test_a_mistake_of_several_processes_is_one_message(
    tiny_run: list[str], tmp_path: Path, command: Command
) -> None:
    gloo = ["trainer=ddp_gloo", "trainer.devices=2", "data.batch_size=7"]
    done = command("train.py", *tiny_run, *gloo, f"hydra.run.dir={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "data.batch_size=7" in done.stderr


def test_a_batch_the_processes_do_not_divide(tiny_run: list[str], tmp_path: Path) -> None:
    """Found by the first process, before it starts the others."""
    gloo = ["trainer=ddp_gloo", "trainer.devices=2", "data.batch_size=7"]
    with pytest.raises(InputError, match=r"data.batch_size=7 .*use 6 or 8"):
        train(compose(*tiny_run, *gloo, run_dir=tmp_path))
    assert not list(tmp_path.iterdir())


def _in_process(rank: int, world: int, store: str, queue: "mp.SimpleQueue[object]") -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        assert is_distributed()
        mean = mean_over_ranks(torch.tensor([float(rank), 2.0])).tolist()
        gathered = gather_rows(torch.tensor([[rank, rank]])).tolist()
        ragged = gather_rows_of_any_number(torch.arange(3.0 * rank)[:, None]).tolist()
        queue.put((rank, mean, gathered, ragged))
    finally:
        dist.destroy_process_group()


def test_collectives(tmp_path: Path) -> None:
    context = mp.get_context("fork")
    queue = context.SimpleQueue()
    arguments = (2, str(tmp_path / "store"), queue)
    processes = [context.Process(target=_in_process, args=(r, *arguments)) for r in range(2)]
    for process in processes:
        process.start()
    results = [queue.get() for _ in processes]
    for process in processes:
        process.join(60)
    for _, mean, gathered, ragged in results:
        assert ragged == [[0.0], [1.0], [2.0]]  # none from the first process
        assert mean == [0.5, 2.0]
        assert gathered == [[0, 0], [1, 1]]


STATEFUL = ["adacos", "adaface", "curricularface", "sphereface"]


def _states(batch: tuple[torch.Tensor, torch.Tensor], parts: list[slice]) -> list[list[float]]:
    """Buffers of every head with state after two steps in these micro-batches."""
    states = []
    for name in STATEFUL:
        torch.manual_seed(0)
        head = create_head(name, embedding_size=8, num_classes=5).double()
        for _ in range(2):
            head.begin_step()
            for part in parts:
                head(batch[0][part], batch[1][part])
        states.append([float(buffer) for buffer in head.buffers()])
    return states


def _heads_in_process(rank: int, world: int, store: str, queue: "mp.SimpleQueue[object]") -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        # One process sees 7 rows in two parts, the other 5, of which one has no label.
        parts = [slice(0, 4), slice(4, 7)] if rank == 0 else [slice(7, 10), slice(10, 12)]
        queue.put(_states(_head_batch(), parts))
    finally:
        dist.destroy_process_group()


def _head_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 5, (12,), generator=generator)
    labels[11] = -1
    return torch.randn(12, 8, generator=generator, dtype=torch.float64), labels


def test_head_state_is_the_same_on_all_processes_and_on_one(tmp_path: Path) -> None:
    context = mp.get_context("fork")
    queue = context.SimpleQueue()
    arguments = (2, str(tmp_path / "store"), queue)
    processes = [context.Process(target=_heads_in_process, args=(r, *arguments)) for r in range(2)]
    for process in processes:
        process.start()
    first, second = (queue.get() for _ in processes)
    for process in processes:
        process.join(60)
    assert first == second
    for got, expected in zip(first, _states(_head_batch(), [slice(0, 12)]), strict=True):
        assert got == pytest.approx(expected, rel=1e-12)


def test_alone_without_a_process_group() -> None:
    rows_ = torch.arange(6.0).view(3, 2)
    assert not is_distributed()
    assert gather_rows(rows_) is rows_
    assert gather_rows_of_any_number(rows_) is rows_
    assert mean_over_ranks(rows_) is rows_
