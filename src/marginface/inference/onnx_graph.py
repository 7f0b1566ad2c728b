"""ONNX graphs of our networks: float images as the network takes them, or bytes."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marginface.inference.description import NetworkInput
from marginface.utils.errors import InputError, first_line
from marginface.utils.optional_packages import require_package

OPSETS = range(17, 21)
DEFAULT_OPSET = 18  # the exporter's own; others are converted from it
_MOST_IMAGES = 1 << 16  # in a batch
_LARGEST = (1 << 31) - (1 << 20)  # bytes of one file, a limit of protobuf
OUTPUT = "embedding"


class PixelNetwork(nn.Module):
    """uint8 (B, S, S, 3) RGB to float32 (B, D) of unit length.

    Args:
        network: (B, 3, S, S), as `taken` says, to (B, D).
        taken: how images become what it takes.
        flip: add the embedding of the mirror image.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, taken: NetworkInput, flip: bool) -> None:
        super().__init__()
        self.network, self.color, self.flip = network, taken.color, flip
        self.register_buffer("mean", torch.tensor(taken.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(taken.std).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        x = pixels.permute(0, 3, 1, 2).to(torch.float32)
        if self.color == "bgr":
            x = x.flip(1)
        x = (x - self.mean) / self.std
        embedding = self.network(x).float()
        if self.flip:
            embedding = embedding + self.network(x.flip(3)).float()
        return F.normalize(embedding)


def make_graph(network: nn.Module, size: int, *, as_bytes: bool, opset: int) -> Any:
    """The graph (an onnx.ModelProto) of a network, for any number of images at once.

    Args:
        network: (B, 3, S, S) float32, or uint8 (B, S, S, 3) `as_bytes`, to (B, D).
        size: S in pixels.
        opset: of ONNX, 17 to 20.

    Raises:
        InputError: onnx or onnxscript is missing, another opset, a network that cannot be exported.
    """
    if opset not in OPSETS:
        raise InputError(f"--opset {opset}: choose 17 to 20; {DEFAULT_OPSET} is the exporter's own")
    for package in ("onnx", "onnxscript"):
        require_package(package, extra="export")
    # Of two images: of one the exporter would take the number for a constant.
    if as_bytes:
        example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    else:
        example = torch.zeros(2, 3, size, size)
    batch = torch.export.Dim("batch", min=1, max=_MOST_IMAGES)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                network.eval(),
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=["pixels" if as_bytes else "images"],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch},),
                verbose=False,
            )
        assert program is not None
        graph = program.model_proto
    except Exception as error:  # the exporter has many ways to refuse a network
        raise InputError(f"torch cannot export this network: {first_line(error)}") from error
    without_traces(graph)
    return graph


def without_traces(graph: Any) -> None:
    """Take out what tells of the machine: stack traces with paths, names of modules."""
    inner = graph.graph
    for part in (graph, inner):
        del part.metadata_props[:]
        part.doc_string = ""
    graph.producer_name, graph.producer_version = "marginface", ""
    for entry in (*inner.node, *inner.value_info, *inner.input, *inner.output, *inner.initializer):
        del entry.metadata_props[:]
        entry.doc_string = ""
    for function in graph.functions:
        del function.metadata_props[:]
        for node in function.node:
            del node.metadata_props[:]


def graph_bytes(graph: Any) -> bytes:
    """The graph as a file holds it; InputError above 2 GB, which one file cannot be."""
    if graph.ByteSize() > _LARGEST:
        raise InputError(
            f"the graph is {graph.ByteSize() / 1e9:.1f} GB, an ONNX file holds 2; --precision fp16 "
            "takes half"
        )
    content: bytes = graph.SerializeToString()
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own progress and advice."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
