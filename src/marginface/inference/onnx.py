"""ONNX files as networks, run by onnxruntime."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from marginface.utils.errors import InputError
from marginface.utils.optional_packages import require_package


class OnnxNetwork(nn.Module):
    """(B, 3, S, S) float32 in [-1, 1] to (B, D), the first output of an ONNX graph.

    Args:
        session: of onnxruntime.
        batch: images the graph takes at once; None for any number.
    """

    def __init__(self, session: Any, batch: int | None) -> None:
        super().__init__()
        self.session, self.batch = session, batch
        self.input_name = session.get_inputs()[0].name

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnnxNetwork":
        return OnnxNetwork(self.session, self.batch)  # a session may be used from many places

    def forward(self, x: Tensor) -> Tensor:
        images = np.ascontiguousarray(x.float().cpu().numpy())
        size = self.batch or len(images)
        parts = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            missing = size - len(part)  # a graph of fixed batch size wants its number
            filled = np.concatenate([part, np.zeros((missing, *part.shape[1:]), np.float32)])
            rows = self.session.run(None, {self.input_name: filled})[0]
            _check_embedding(rows.shape, self.session)
            parts.append(torch.from_numpy(rows[: len(part)]))
        return torch.cat(parts).to(x.device)


def open_onnx(path: Path) -> tuple[Callable[[], nn.Module], int]:
    """A function that gives the network, and the side of its images in pixels.

    The graph must take images as our networks do: (x/255 - 0.5)/0.5, which is what insightface's
    torch2onnx writes.

    Raises:
        InputError: onnxruntime is missing, the file cannot be read, or its input is not a square
            color image.
    """
    runtime = require_package("onnxruntime", extra="export")
    providers = [
        provider
        for provider in ("CUDAExecutionProvider", "CPUExecutionProvider")
        if provider in runtime.get_available_providers()
    ]
    try:
        session = runtime.InferenceSession(str(path), providers=providers)
    except Exception as error:  # onnxruntime has many ways to refuse a file
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} is not a readable ONNX file: {reason}") from error
    taken = session.get_inputs()[0]
    shape = taken.shape
    side = shape[3] if len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3] else None
    if not isinstance(side, int) or taken.type != "tensor(float)":
        raise InputError(
            f"{path}: its input is {taken.type} of shape {shape}; expected tensor(float) of "
            "(batch, 3, S, S) with a fixed S"
        )
    _check_embedding(session.get_outputs()[0].shape, session)
    batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
    return lambda: OnnxNetwork(session, batch), side


def _check_embedding(shape: Sequence[Any], session: Any) -> None:
    """InputError unless the first output may be an embedding; names stand for open sizes."""
    if len(shape) == 2 and (not isinstance(shape[1], int) or shape[1] > 1):
        return
    outputs = ", ".join(f"{output.name} {list(output.shape)}" for output in session.get_outputs())
    raise InputError(
        f"the ONNX file's first output is of shape {list(shape)}, an embedding is (images, "
        f"D) with D > 1. Its outputs are {outputs}; export the network with the embedding first"
    )


def external_weight_files(path: Path) -> list[Path]:
    """Files with weights that an ONNX file refers to, as exporters write for large networks."""
    onnx = require_package("onnx", extra="export")
    graph = onnx.load(str(path), load_external_data=False).graph
    names = {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return sorted(path.parent / name for name in names)
