"""Folders to share: weights, what a program needs besides, a card. See `export_folder`.

model.safetensors   weights
config.json         the description, see `Description`
README.md           card for people: license, data, accuracy, thresholds, intended use
metrics.json        result.json of an evaluation
model.onnx          the network as a graph
head.safetensors, LICENSE   where asked for
"""

import hashlib
import json
from pathlib import Path

from torch import nn

from marginface.inference.description import Description, read_description
from marginface.inference.model_file import ModelFile, weights_digest
from marginface.utils.errors import InputError, MissingInputError

WEIGHTS, CONFIG, CARD, METRICS, GRAPH, HEAD, LICENSE = (
    "model.safetensors", "config.json", "README.md", "metrics.json", "model.onnx",
    "head.safetensors", "LICENSE",
)  # fmt: skip
_LONGEST = 1 << 24  # bytes of config.json that are read


def open_shared_folder(folder: Path) -> ModelFile:
    """The network in a shared folder; nothing in it is run, and nothing outside it is read.

    Raises:
        InputError: a file of it is missing, damaged, or does not fit the others.
    """
    path, weights = folder / CONFIG, folder / WEIGHTS
    for part in (path, weights):
        if not part.is_file():
            raise MissingInputError(f"no {part}; {folder} is not a folder that marginface exported")
        if not part.resolve().is_relative_to(folder.resolve()) and not _of_hub(part):
            raise InputError(f"{part} is a link to {part.resolve()}, outside the folder")
    if path.stat().st_size > _LONGEST:
        raise InputError(f"{path} has {path.stat().st_size} bytes, it is not a description of ours")
    text = path.read_text(errors="replace")
    description = read_description(text, path)
    stated = json.loads(text).get("weights_sha256")
    if description.backbone is None:
        raise InputError(f"{path} names no backbone; the network cannot be built")
    if stated is not None and stated != _sha256(weights):
        raise InputError(
            f"{weights} is not the file {path} was written for (other SHA-256): it is damaged or "
            "was exchanged; get the folder again"
        )
    return ModelFile(
        weights,
        str(description.backbone.get("name")),
        description.backbone,
        lambda: _build(description, weights),
        description,
        own=True,
    )


def _of_hub(part: Path) -> bool:
    """Whether a link is one of huggingface_hub's cache, from snapshots/<commit>/ to blobs/."""
    return (
        part.is_symlink()
        and part.resolve().parent.name == "blobs"
        and (part.resolve().parent.parent == part.parent.resolve().parent.parent)
    )


def _build(description: Description, weights: Path) -> nn.Module:
    from marginface.backbones import create_backbone, load_backbone_weights
    from marginface.backbones.factory import backbone_problems
    from marginface.utils.errors import raise_problems

    assert description.backbone is not None
    config = {k: v for k, v in description.backbone.items() if k not in ("weights", "color")}
    raise_problems(backbone_problems(config | {"weights": None, "color": "rgb"}))
    network = create_backbone(**(config | {"pretrained": False}))
    load_backbone_weights(network, weights)
    if description.precision == "fp32" and weights_digest(network) != description.digest:
        raise InputError(
            f"{weights}: its weights are not those of digest {description.digest[:12]}... in "
            f"{CONFIG}; get the folder again"
        )
    return network


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
