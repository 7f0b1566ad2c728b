"""Class centers and their optimizer state, written by some processes and read by others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.processes import run_processes
from marginface.classifier import ClassifierOptions, Shard
from marginface.heads import MarginHead, create_head
from marginface.runs.checkpoint_file import read_centers
from marginface.training.checkpoints.centers import pack_head, remove_old_folders, unpack_head
from marginface.utils.errors import InputError

C, D, K = 7, 4, 3
WHOLE = torch.arange(C * K * D, dtype=torch.float32).view(C * K, D)


def make(rank: int, world: int, shards: bool, apart: bool) -> MarginHead:
    return create_head(
        "subcenter_arcface",
        embedding_size=D,
        num_classes=C,
        sub_centers=K,
        shard=Shard(rank, world, C) if shards else None,
        classifier=ClassifierOptions(separate_file_above_mib=1e-6 if apart else 1),
    )


def checkpoint_of(head: MarginHead) -> dict[str, Any]:
    """What Lightning has when the module is asked: this process's part, filled from WHOLE."""
    start = head.shard.start * K if head.shard else 0
    rows = WHOLE[start : start + len(head.weight)]
    other = {"momentum_buffer": torch.ones(3)}
    state = {0: other, 1: {"step": torch.tensor(5.0), "exp_avg": rows + 100, "exp_avg_sq": -rows}}
    return {
        "state_dict": {"backbone.w": torch.ones(3), "head.centers.weight": rows.clone()},
        "optimizer_states": [{"state": state, "param_groups": []}],
        "marginface": {},
    }


def write(rank: int, world: int, folder: Path, shards: bool, apart: bool) -> None:
    head = make(rank, world, shards, apart)
    checkpoint = checkpoint_of(head)
    of_optimizer = checkpoint["optimizer_states"][0]["state"][1]
    before = dict(of_optimizer)
    pack_head(checkpoint, head, 1, folder / "last.ckpt")
    assert all(of_optimizer[key] is value for key, value in before.items())
    if rank == 0:
        torch.save(checkpoint, folder / "last.ckpt")


def read(rank: int, world: int, folder: Path, shards: bool) -> dict[str, Tensor]:
    head = make(rank, world, shards, apart=False)
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    unpack_head(checkpoint, head, folder / "last.ckpt")
    state = checkpoint["optimizer_states"][0]["state"]
    assert torch.equal(state[0]["momentum_buffer"], torch.ones(3))
    assert state[1]["step"] == 5
    return {
        "weight": checkpoint["state_dict"]["head.centers.weight"],
        "exp_avg": state[1]["exp_avg"],
        "exp_avg_sq": state[1]["exp_avg_sq"],
    }


def assert_whole(parts: list[dict[str, Tensor]], shards: bool) -> None:
    for key, expected in (("weight", WHOLE), ("exp_avg", WHOLE + 100), ("exp_avg_sq", -WHOLE)):
        if shards:
            assert torch.equal(torch.cat([part[key] for part in parts]), expected), key
        else:
            assert all(torch.equal(part[key], expected) for part in parts), key


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("writers", "spread"), [(1, False), (1, True), (2, False), (3, True)])
def test_any_number_of_processes_reads_it(
    tmp_path: Path, writers: int, spread: bool, apart: bool
) -> None:
    if writers == 1:
        write(0, 1, tmp_path, spread, apart)
    else:
        (tmp_path / "w").mkdir()
        run_processes(writers, tmp_path / "w", write, tmp_path, spread, apart)
    assert len(list(tmp_path.glob("last.ckpt.head-*"))) == int(apart)
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(read_centers(stored, tmp_path / "last.ckpt"), WHOLE)
    assert (len(stored["state_dict"]["head.centers.weight"]) == 0) == apart
    for readers, shards in ((1, False), (1, True)):
        assert_whole([read(0, readers, tmp_path, shards)], shards)
    for shards in (False, True):
        folder = tmp_path / f"r{shards}"
        folder.mkdir()
        assert_whole(run_processes(2, folder, read, tmp_path, shards), shards)


def test_old_folders_go_and_a_missing_one_is_named(tmp_path: Path) -> None:
    write(0, 1, tmp_path, False, True)
    (first,) = tmp_path.glob("last.ckpt.head-*")
    write(0, 1, tmp_path, False, True)
    (second,) = set(tmp_path.glob("last.ckpt.head-*")) - {first}
    other = tmp_path / "best.ckpt.head-1"
    other.mkdir()
    remove_old_folders(tmp_path / "last.ckpt", second.name)
    assert sorted(tmp_path.glob("*.head-*")) == sorted([other, second])
    remove_old_folders(tmp_path / "last.ckpt", None)
    with pytest.raises(InputError, match=f"{second} is missing or incomplete"):
        read(0, 1, tmp_path, False)
