"""What computes a network: torch, onnxruntime, OpenVINO."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from marginface.inference.model_file import ModelFile
from marginface.inference.onnx import in_batches, open_onnx
from marginface.inference.open_model import open_model
from marginface.inference.shared_folder import GRAPH, WEIGHTS
from marginface.utils.errors import InputError, check_choice, first_line
from marginface.utils.optional_packages import require_package

Runtime = Literal["auto", "torch", "onnxruntime", "openvino"]


class OpenVinoNetwork(nn.Module):
    """An ONNX graph compiled by OpenVINO for the CPU.

    Args:
        path: of the graph.
        takes_bytes: see `OnnxNetwork`.
        precision: "f32" or "bf16", which OpenVINO would choose by itself where the CPU has it.

    Attributes:
        computes_in: the precision OpenVINO says it computes in.
    """

    def __init__(self, path: Path, takes_bytes: bool, precision: str = "f32") -> None:
        super().__init__()
        openvino = require_package("openvino", extra="openvino")
        self.path, self.takes_bytes, self.precision = path, takes_bytes, precision
        self.batch = open_onnx(path).build().batch
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
        }
        try:
            self.compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        except Exception as error:  # of OpenVINO
            raise InputError(f"OpenVINO cannot open {path}: {first_line(error)}") from error
        asked = self.compiled.get_property("INFERENCE_PRECISION_HINT")
        self.computes_in = str(getattr(asked, "get_type_name", lambda: asked)())

    def __deepcopy__(self, memo: dict[int, Any]) -> "OpenVinoNetwork":
        return OpenVinoNetwork(self.path, self.takes_bytes, self.precision)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1) if self.takes_bytes else x.float()
        images = np.ascontiguousarray(x.cpu().numpy())
        rows = in_batches(self._run, images, self.batch)
        return torch.from_numpy(rows).to(x.device)

    def _run(self, images: Any) -> Any:
        try:
            return np.array(self.compiled([images])[self.compiled.outputs[0]], np.float32)
        except Exception as error:  # of OpenVINO
            raise InputError(f"OpenVINO fails on {images.shape}: {first_line(error)}") from error


def for_runtime(file: ModelFile, runtime: str) -> ModelFile:
    """The file with a network that this runtime computes.

    Raises:
        InputError: a runtime the file is not for.
    """
    check_choice("runtime", runtime, get_args(Runtime))
    is_graph = file.path.suffix == ".onnx"
    if runtime == "auto" or runtime == ("onnxruntime" if is_graph else "torch"):
        return file
    if runtime == "torch":
        raise InputError(f"{file.path} is an ONNX graph; runtime=onnxruntime or openvino runs it")
    if not is_graph:
        file = _graph_beside(file, runtime)
    if runtime == "onnxruntime":
        return file
    takes_bytes = file.description.layout == "uint8"
    return replace(file, build=lambda: OpenVinoNetwork(file.path, takes_bytes))


def _graph_beside(file: ModelFile, runtime: str) -> ModelFile:
    """The graph in a shared folder, of the very weights in it."""
    graph = file.path.with_name(GRAPH)
    if not (file.own and file.path.name == WEIGHTS and graph.is_file()):
        raise InputError(
            f"runtime={runtime} runs ONNX graphs, and {file.path} holds weights; write one with "
            "marginface export"
        )
    found = open_model(graph)
    parts = ("digest", "input", "flip", "precision")
    if any(getattr(found.description, p) != getattr(file.description, p) for p in parts):
        raise InputError(
            f"{graph} is not the graph of {file.path} (digest {found.description.digest[:12]} and "
            f"{file.description.digest[:12]}); get the folder again"
        )
    return found
