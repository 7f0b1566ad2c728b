"""Trained networks in files: run folders, our checkpoints, bare weights, ONNX."""

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from torch import nn

from marginface.backbones import create_backbone, load_backbone_weights
from marginface.backbones.preprocessing import Color
from marginface.backbones.weights import identify_network
from marginface.inference.onnx import external_weight_files, open_onnx
from marginface.runs.checkpoint_file import read_checkpoint
from marginface.runs.folder import RunFolder
from marginface.utils.errors import InputError, MissingInputError


@dataclass(frozen=True)
class ModelFile:
    """A file with a network, not loaded yet.

    Attributes:
        path: of the file.
        name: of the network.
        image_size: S, side of the images it takes, in pixels.
        color: channel order it was trained in.
        settings: what the network is built with, besides its weights.
        build: the network, with its weights.
    """

    path: Path
    name: str
    image_size: int
    color: Color
    settings: dict[str, Any]
    build: Callable[[], nn.Module]

    def fingerprint(self) -> str:
        """A hash of the file, which stands for the weights."""
        files = [self.path]
        if self.path.suffix == ".onnx":
            files += external_weight_files(self.path)
        digest = hashlib.sha256()
        for path in files:
            with path.open("rb") as file:
                while block := file.read(1 << 24):
                    digest.update(block)
        return digest.hexdigest()


def open_model(
    path: str | Path, backbone: dict[str, Any] | None = None, color: Color | None = None
) -> ModelFile:
    """Find out what a file holds.

    Args:
        path: a run folder, a .ckpt, weights (.pth, .pt, .safetensors; insightface's as they are),
            or .onnx.
        backbone: configuration of the network in a file of bare weights; without it the file is
            compared with insightface's networks.
        color: channel order, where the file does not state it; rgb when not given.

    Raises:
        MissingInputError: no such file.
        InputError: nothing known, or another color order or network than the file states.
    """
    path = Path(path)
    if path.is_dir():
        folder = path
        path = RunFolder(folder).last
        if not path.is_file():
            raise MissingInputError(f"no checkpoint {path}; {folder} is not a run folder with one")
    if not path.is_file():
        raise MissingInputError(
            f"no checkpoint {path}; give a run folder, a .ckpt, .pth, .safetensors or .onnx file"
        )
    if path.suffix == ".onnx":
        _check_no_backbone(path, backbone)
        build, size = open_onnx(path)
        return ModelFile(path, path.stem, size, color or "rgb", {}, build)
    if path.suffix != ".safetensors":
        description = _description(path)
        if description is not None:
            _check_no_backbone(path, backbone)
            return _from_checkpoint(path, description, color)
    config = dict(backbone) if backbone is not None else identify_network(path)
    config.pop("weights", None)
    stated = config.pop("color", None)
    return ModelFile(
        path,
        config["name"],
        config["image_size"],
        color or stated or "rgb",
        config,
        lambda: _with_weights(config, path),
    )


def _from_checkpoint(path: Path, description: dict[str, Any], color: Color | None) -> ModelFile:
    config = dict(description["config"]["backbone"])
    trained_in = config.pop("color")
    del config["weights"]
    if color is not None and color != trained_in:
        raise InputError(
            f"{path} was trained in {trained_in} order; color={color} would give it other images "
            "than it knows, leave color out"
        )
    # What starting weights it was trained from does not matter any more.
    config["pretrained"] = False
    plugins = description["config"].get("plugins", [])
    return ModelFile(
        path,
        config["name"],
        config["image_size"],
        trained_in,
        config,
        lambda: _with_plugins(config, path, plugins),
    )


def _with_plugins(config: dict[str, Any], path: Path, plugins: list[str]) -> nn.Module:
    """The network; an error names the plugins that may define it, but does not import them.

    What a file names is not run: who trusts it says so.
    """
    missing = [name for name in plugins if name not in sys.modules]
    if missing and not timm.is_model(config["name"]):
        raise InputError(
            f"{path} holds the network {config['name']!r} of a run with plugins of its own; add "
            f"plugins=[{','.join(missing)}]"
        )
    return _with_weights(config, path)


def _with_weights(config: dict[str, Any], path: Path) -> nn.Module:
    network = create_backbone(**config)
    load_backbone_weights(network, path)
    return network


def _description(path: Path) -> dict[str, Any] | None:
    """The description in one of our checkpoints."""
    stored = read_checkpoint(path).get("marginface", {})
    return stored.get("description") if isinstance(stored, dict) else None


def _check_no_backbone(path: Path, backbone: dict[str, Any] | None) -> None:
    if backbone is not None:
        raise InputError(f"{path} states which network it holds; leave backbone= out")
