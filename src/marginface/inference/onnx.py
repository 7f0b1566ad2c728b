"""ONNX files as networks, run by onnxruntime."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from marginface.inference.description import DESCRIPTION_KEY, Description, read_description
from marginface.utils.errors import InputError, first_line
from marginface.utils.optional_packages import require_package

_PLACE = b"location"  # key of what stands in another file


class OnnxNetwork(nn.Module):
    """The first output, (B, D), of an ONNX graph.

    Attributes:
        takes_bytes: whether images are uint8 (B, 3, S, S) RGB and the graph does all else; they
            are float32 (B, 3, S, S) as the network wants them otherwise.

    Args:
        session: of onnxruntime.
        batch: images the graph takes at once; None for any number.
        takes_bytes: as above.
    """

    def __init__(self, session: Any, batch: int | None, takes_bytes: bool = False) -> None:
        super().__init__()
        self.session, self.batch, self.takes_bytes = session, batch, takes_bytes
        self.input_name = session.get_inputs()[0].name
        self.output_name = session.get_outputs()[0].name

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnnxNetwork":
        # A session may be used from many places.
        return OnnxNetwork(self.session, self.batch, self.takes_bytes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1) if self.takes_bytes else x.float()
        images = np.ascontiguousarray(x.cpu().numpy())
        return torch.from_numpy(in_batches(self._run, images, self.batch)).to(x.device)

    def _run(self, images: Any) -> Any:
        try:
            rows = self.session.run([self.output_name], {self.input_name: images})[0]
        except Exception as error:  # onnxruntime has many ways to fail
            raise InputError(f"the ONNX graph fails on {images.shape}: {_reason(error)}") from error
        _check_embedding(rows.shape, self.session)
        return rows


def in_batches(run: Callable[[Any], Any], images: Any, batch: int | None) -> Any:
    """float32 (N, D) of images (N, ...), from a graph that may take a fixed number of them only."""
    size = batch or len(images)
    parts = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        missing = size - len(part)  # a graph of fixed batch size wants its number
        filled = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])
        parts.append(run(filled)[: len(part)].astype(np.float32))
    return np.concatenate(parts)


class OnnxFile(NamedTuple):
    """An ONNX file that onnxruntime can run.

    Attributes:
        build: gives the network.
        size: side of its images in pixels.
        description: what it says of itself; None in a file of others.
    """

    build: Callable[[], OnnxNetwork]
    size: int
    description: Description | None


def open_onnx(path: Path) -> OnnxFile:
    """Open a graph that takes square color images, (B, 3, S, S) float or (B, S, S, 3) bytes.

    Raises:
        InputError: onnxruntime is missing, the file cannot be read, its weights are outside its
            folder, or its input is not such images.
    """
    runtime = require_package("onnxruntime", extra="export")
    session = _session(runtime, path)
    text = session.get_modelmeta().custom_metadata_map.get(DESCRIPTION_KEY)
    description = None if text is None else read_description(text, f"{path} (its metadata)")
    taken = session.get_inputs()[0]
    shape = list(taken.shape)
    takes_bytes = taken.type == "tensor(uint8)"
    sides, channels = (shape[1:3], shape[3:]) if takes_bytes else (shape[2:], shape[1:2])
    side = sides[0] if len(shape) == 4 and channels == [3] and sides[0] == sides[1] else None
    if not isinstance(side, int) or taken.type not in ("tensor(float)", "tensor(uint8)"):
        raise InputError(
            f"{path}: its input is {taken.type} of shape {shape}; expected tensor(float) of "
            "(batch, 3, S, S) with a fixed S, or tensor(uint8) of (batch, S, S, 3)"
        )
    if description is not None and (
        description.input.size != side or takes_bytes != (description.layout == "uint8")
    ):
        raise InputError(
            f"{path}: its metadata says {description.layout} images of {description.input.size} "
            f"pixels, and its input is {taken.type} of shape {shape}; export it again"
        )
    _check_embedding(session.get_outputs()[0].shape, session)
    batch = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else None
    return OnnxFile(lambda: OnnxNetwork(session, batch, takes_bytes), side, description)


def _session(runtime: Any, path: Path) -> Any:
    providers = [
        provider
        for provider in ("CUDAExecutionProvider", "CPUExecutionProvider")
        if provider in runtime.get_available_providers()
    ]
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # warnings are of graphs of others, and go to stderr by the page
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime has many ways to refuse a file
        raise InputError(f"{path} is not a readable ONNX file: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return first_line(error)[:300]


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
    """Files with weights that an ONNX file refers to, as exporters write for large networks.

    Raises:
        InputError: one outside the folder of the file; onnxruntime does not read it either.
    """
    if _PLACE not in path.read_bytes():
        return []  # and onnx need not be imported
    onnx = require_package("onnx", extra="export")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception as error:  # of protobuf
        raise InputError(f"{path} is not a readable ONNX file: {_reason(error)}") from error
    names = {
        entry.value
        for tensor in _tensors(graph)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    folder = path.parent.resolve()
    for name in sorted(names):
        if not (folder / name).resolve().is_relative_to(folder):
            raise InputError(
                f"{path} wants weights from {name!r}, outside its folder; they are not read"
            )
    return sorted(path.parent / name for name in names)


def _tensors(graph: Any) -> list[Any]:
    """Initializers and constants of a graph and of those within it."""
    found = list(graph.initializer)
    for sparse in graph.sparse_initializer:
        found += [sparse.values, sparse.indices]
    for node in graph.node:
        for attribute in node.attribute:
            found += [attribute.t, *attribute.tensors]
            for inner in [attribute.g, *attribute.graphs]:
                found += _tensors(inner) if inner.node or inner.initializer else []
    return found


def onnx_digest(path: Path) -> str:
    """SHA-256 of an ONNX file and of the files with its weights."""
    digest = hashlib.sha256()
    for part in [path, *external_weight_files(path)]:
        with part.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
