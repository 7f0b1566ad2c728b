"""Class centers and their optimizer state in a checkpoint: in the order of the classes, whatever
number of processes wrote them and whatever number reads them.

Small ones are part of the checkpoint; large ones are in a folder next to it, which all processes
write (torch.distributed.checkpoint), so that no process ever has them all.
"""

import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor import Shard as ShardedRows

from marginface.classifier import Shard
from marginface.classifier.options import MIB
from marginface.heads import MarginHead
from marginface.runs.checkpoint_file import CENTERS, Checkpoint, complete_folder, without_processes
from marginface.utils.distributed import add_over_ranks, gather_to_first, is_distributed, rank
from marginface.utils.errors import CheckpointWriteError


@dataclass(frozen=True)
class HeadRows:
    """Where the rows of class centers are in Lightning's checkpoint.

    Args:
        checkpoint: with state_dict and optimizer_states.
        number: of the centers among the parameters of the optimizer.
    """

    checkpoint: Checkpoint
    number: int

    def read(self) -> dict[str, Tensor]:
        """weight, and every part of the optimizer's state that has a row for each row of it."""
        rows = {"weight": self.checkpoint["state_dict"][CENTERS]}
        state = self._state().items()
        return rows | {k: v for k, v in state if isinstance(v, Tensor) and v.ndim == 2}

    def write(self, rows: dict[str, Tensor]) -> None:
        """Put rows where `read` finds them; what the optimizer itself has stays as it is."""
        states = self.checkpoint.get("optimizer_states")
        if states and self.number in states[0]["state"]:
            # The inner dictionary is the optimizer's own.
            states[0]["state"][self.number] = dict(states[0]["state"][self.number])
        for key, value in rows.items():
            if key == "weight":
                self.checkpoint["state_dict"][CENTERS] = value
            else:
                self._state()[key] = value

    def _state(self) -> dict[str, Any]:
        states = self.checkpoint.get("optimizer_states") or [{"state": {}}]
        state: dict[str, Any] = states[0]["state"].get(self.number, {})
        return state


def pack_head(checkpoint: Checkpoint, head: MarginHead, number: int, path: Path | None) -> None:
    """Make what one process has of the head into what a checkpoint holds; all processes together.

    Args:
        checkpoint: about to be written by the first process.
        number: of the centers among the parameters of the optimizer.
        path: where the checkpoint will be, for the folder next to it; None: everything is inside.
    """
    rows = HeadRows(checkpoint, number)
    about: dict[str, Any] = {"number": number, "classes": head.num_classes, "folder": None}
    checkpoint["marginface"]["head"] = about
    size = head.centers.num_rows * head.embedding_size
    if (
        path is None
        or size * head.weight.element_size() <= head.options.separate_file_above_mib * MIB
    ):
        if head.shard is not None:
            _gather(rows, head.shard, head.centers.centers_per_class, head.weight.device)
        return
    # A new name each time: the checkpoint before stays whole until this one is.
    stamp = torch.tensor([time.time_ns() if rank() == 0 else 0], device=head.weight.device)
    folder = path.with_name(f"{path.name}.head-{int(add_over_ranks(stamp))}")
    found = rows.read()
    about |= {"folder": folder.name, "names": list(found)}
    _save(found, head, folder)
    rows.write({key: value[:0].clone() for key, value in found.items()})


def unpack_head(checkpoint: Checkpoint, head: MarginHead, path: Path | None) -> None:
    """Make what a checkpoint holds of the head into what this process has of it."""
    about = checkpoint["marginface"]["head"]
    rows = HeadRows(checkpoint, about["number"])
    if about["folder"] is not None:
        assert path is not None, "centers in a folder next to a checkpoint whose place is not known"
        rows.write(_load(about["names"], head, path.parent / about["folder"]))
    elif head.shard is not None:
        k = head.centers.centers_per_class
        here = slice(head.shard.start * k, head.shard.stop * k)
        rows.write({key: value[here].clone() for key, value in rows.read().items()})


def remove_old_folders(path: Path, checkpoint_folder: str | None) -> None:
    """Delete the folders of earlier versions of the checkpoint at `path`."""
    for folder in path.parent.glob(f"{path.name}.head-*"):
        if folder.name != checkpoint_folder:
            shutil.rmtree(folder, ignore_errors=True)  # what is left goes next time


def _gather(rows: HeadRows, shard: Shard, per_class: int, device: torch.device) -> None:
    shards = [Shard(r, shard.world, shard.num_classes) for r in range(shard.world)]
    counts = [per_class * (s.stop - s.start) for s in shards]
    # One after the other, on the device that collectives work on; whole ones on the CPU only.
    for key, value in rows.read().items():
        rows.write({key: gather_to_first(value.to(device), counts).cpu()})


def _save(found: dict[str, Tensor], head: MarginHead, folder: Path) -> None:
    try:
        if _is_sharded(head):
            save(_by_class(found, head), checkpoint_id=folder)
        elif rank() == 0:  # all processes have the same
            with without_processes():
                save(_by_class(found, head), checkpoint_id=folder, no_dist=True)
    except (OSError, CheckpointException) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CheckpointWriteError(
            f"could not write the class centers to {folder}: {error}; the checkpoint before is "
            "still there, and the same command resumes from it"
        ) from error
    if is_distributed():
        dist.barrier()


def _load(names: list[str], head: MarginHead, folder: Path) -> dict[str, Tensor]:
    rows = {key: torch.empty_like(head.weight, requires_grad=False) for key in names}
    sharded = _is_sharded(head)
    with nullcontext() if sharded else without_processes():
        load(_by_class(rows, head), checkpoint_id=complete_folder(folder), no_dist=not sharded)
    return rows


def _is_sharded(head: MarginHead) -> bool:
    return head.shard is not None and head.shard.world > 1


def _by_class(rows: dict[str, Tensor], head: MarginHead) -> dict[str, Any]:
    """The same memory with a row for each class, marked as a part of the whole where it is one."""
    width = head.centers.centers_per_class * head.embedding_size
    views = {key: value.detach().view(-1, width) for key, value in rows.items()}
    if head.shard is None or not _is_sharded(head):
        return views
    mesh = init_device_mesh(head.weight.device.type, (head.shard.world,))
    size, stride = torch.Size([head.num_classes, width]), (width, 1)
    place = [ShardedRows(0)]
    return {
        key: DTensor.from_local(v, mesh, place, run_check=False, shape=size, stride=stride)
        for key, v in views.items()
    }
