"""Exports class centers from a checkpoint into a safetensors file."""

from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import save

from marginface.runs.checkpoint_file import has_centers, read_centers, read_checkpoint
from marginface.runs.folder import RunFolder
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.files import atomic_write

EXPORTED_NAME = "head.weight"
NAMES_SUFFIX = ".identities.txt"  # instead of .safetensors: whose centers they are, a line each


def export_head(run: Path, target: Path, *, normalize: bool = False) -> tuple[int, int]:
    """Write the tensor `head.weight`, (C K, D) in the order of the labels; returns its shape.

    What the people are called goes into a text file next to it, where the run knows it.

    Args:
        run: run folder, whose last checkpoint is taken, or a .ckpt file.
        target: new .safetensors file; its metadata has head, num_classes and centers_per_class.
        normalize: make every center a unit vector.

    Raises:
        InputError: no checkpoint, one without a head, or a target that exists.
    """
    path = RunFolder(run).last if run.is_dir() else run
    if not path.is_file():
        raise MissingInputError(f"no checkpoint {path}; give a run folder or a .ckpt file")
    if target.exists():
        raise InputError(f"{target} exists and would be overwritten; choose another name")
    checkpoint = read_checkpoint(path)
    if not has_centers(checkpoint):
        raise InputError(f"{path} holds no class centers of a marginface training run")
    centers = read_centers(checkpoint, path)
    if normalize:
        centers = F.normalize(centers)
    about = checkpoint["marginface"]
    classes = about.get("head", {}).get("classes", len(centers))
    metadata = {
        "head": str(about["description"]["config"]["head"]["name"]),
        "num_classes": str(classes),
        "centers_per_class": str(len(centers) // classes),
    }
    names = RunFolder(run if run.is_dir() else run.parent.parent).identities
    if names.is_file():
        with atomic_write(target.with_suffix(NAMES_SUFFIX)) as file:
            file.write(names.read_bytes())
    with atomic_write(target) as file:
        file.write(save({EXPORTED_NAME: centers.contiguous()}, metadata))
    return centers.shape[0], centers.shape[1]
