"""Class centres out of a checkpoint, into a file that needs nothing of ours to be read."""

from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import save

from marginface.runs.checkpoint_file import CENTRES, read_centres, read_checkpoint
from marginface.runs.folder import RunFolder
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.files import atomic_write


def export_head(run: Path, target: Path, *, normalise: bool = False) -> tuple[int, int]:
    """Write the tensor `head.weight`, (C K, D) in the order of the labels; returns its shape.

    Args:
        run: run folder, whose last checkpoint is taken, or a .ckpt file.
        target: new .safetensors file; its metadata has head, num_classes and centres_per_class.
        normalise: make every centre a unit vector.

    Raises:
        InputError: no checkpoint, one without a head, or a target that exists.
    """
    path = RunFolder(run).last if run.is_dir() else run
    if not path.is_file():
        raise MissingInputError(f"no checkpoint {path}; give a run folder or a .ckpt file")
    if target.exists():
        raise InputError(f"{target} exists and would be overwritten; choose another name")
    checkpoint = read_checkpoint(path)
    if "marginface" not in checkpoint or CENTRES not in checkpoint.get("state_dict", {}):
        raise InputError(f"{path} holds no class centres of a marginface training run")
    centres = read_centres(checkpoint, path)
    if normalise:
        centres = F.normalize(centres)
    about = checkpoint["marginface"]
    classes = about.get("head", {}).get("classes", len(centres))
    metadata = {
        "head": str(about["description"]["config"]["head"]["name"]),
        "num_classes": str(classes),
        "centres_per_class": str(len(centres) // classes),
    }
    with atomic_write(target) as file:
        file.write(save({CENTRES: centres.contiguous()}, metadata))
    return centres.shape[0], centres.shape[1]
