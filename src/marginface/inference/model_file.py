"""A file with a network: what it holds, and the digest of its weights."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from marginface.data.preprocessing import Color
from marginface.inference.description import Description, NetworkInput
from marginface.inference.onnx import onnx_digest


@dataclass(frozen=True)
class ModelFile:
    """A file with a network, not loaded yet.

    Attributes:
        path: of the file.
        name: of the network.
        settings: what the network is built with, besides its weights.
        build: the network, with its weights.
        description: what it says of itself; for files that say nothing, what was given.
        own: whether the file is one of ours, with its flip and its thresholds.
        recognized: of a network of others, how it was recognized, in words.
    """

    path: Path
    name: str
    settings: dict[str, Any]
    build: Callable[[], nn.Module]
    description: Description
    own: bool = False
    recognized: str = ""

    @property
    def input(self) -> NetworkInput:
        """How images become what it takes."""
        return self.description.input

    @property
    def image_size(self) -> int:
        """S, side of the images it takes, in pixels."""
        return self.input.size

    @property
    def color(self) -> Color:
        """Channel order it was trained in."""
        return self.input.color

    def fingerprint(self) -> str:
        """A hash of the file, which stands for the weights."""
        if self.path.suffix == ".onnx":
            return onnx_digest(self.path)
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def digest(self, network: nn.Module) -> str:
        """`Description.digest`, stated or computed of the network that was built."""
        if self.description.digest:
            return self.description.digest
        return self.fingerprint() if self.path.suffix == ".onnx" else weights_digest(network)


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights, by name; other files with the same weights share it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if name.endswith("num_batches_tracked"):  # a counter, which nothing of the result is due to
            continue
        kept = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {kept.dtype} {list(kept.shape)}\n".encode())
        digest.update(kept.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
