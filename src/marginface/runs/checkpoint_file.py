"""Reading checkpoint files; nothing in them is executed."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marginface.utils.errors import InputError
from marginface.utils.torch_files import load_tensors

CHECKPOINT_FORMAT = 2  # 1: before the modules and settings of version 0.2 had their names
# The one parameter that differs between processes; in a submodule, or DDP would average it.
CENTERS = "head.centers.weight"
_CENTERS_BEFORE = "head.weight"  # in checkpoints of version 0.1
Checkpoint = dict[str, Any]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's content; nothing in it is run."""
    content = load_tensors(path, "checkpoint")
    if not isinstance(content, dict):
        raise InputError(f"{path} holds {type(content).__name__}, not a checkpoint")
    return content


def has_centers(checkpoint: Checkpoint) -> bool:
    """Whether this is a checkpoint of a training run, with class centers."""
    state = checkpoint.get("state_dict", {})
    return "marginface" in checkpoint and (CENTERS in state or _CENTERS_BEFORE in state)


def read_centers(checkpoint: Checkpoint, path: Path) -> Tensor:
    """(C K, D) all class centers of the checkpoint at `path`, wherever they are."""
    state = checkpoint["state_dict"]
    weight: Tensor = state[CENTERS] if CENTERS in state else state[_CENTERS_BEFORE]
    about = checkpoint["marginface"].get("head")
    if about is None or about["folder"] is None:
        return weight
    # Imported here: it takes as long as torch itself, and a network alone does not need it.
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    folder = complete_folder(path.parent / about["folder"])
    saved = FileSystemReader(folder).read_metadata().state_dict_metadata["weight"]
    assert isinstance(saved, TensorStorageMetadata)
    content = {"weight": torch.empty(saved.size, dtype=weight.dtype)}
    with without_processes():
        load(content, checkpoint_id=folder, no_dist=True)
    return content["weight"].view(-1, weight.shape[1])


@contextmanager
def without_processes() -> Iterator[None]:
    """For torch.distributed.checkpoint with no_dist: its warning about that is not shown."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # it is meant to be
        yield


def complete_folder(folder: Path) -> Path:
    """The folder of class centers, InputError unless it is there as a whole."""
    if not (folder / ".metadata").is_file():
        raise InputError(
            f"{folder} is missing or incomplete: the class centers of a checkpoint are there, "
            "it has to stay next to the .ckpt file"
        )
    return folder
