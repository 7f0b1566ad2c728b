"""What computes a network: torch, onnxruntime, OpenVINO."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from marginface.inference.model_file import ModelFile
from marginface.inference.open_model import open_model
from marginface.utils.errors import InputError, check_choice, first_line
from marginface.utils.optional_packages import require_package

RUNTIMES = ("auto", "torch", "onnxruntime", "openvino")


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
        rows = self.compiled([images])[self.compiled.outputs[0]]
        return torch.from_numpy(np.array(rows, np.float32)).to(x.device)


def for_runtime(file: ModelFile, runtime: str) -> ModelFile:
    """The file with a network that this runtime computes.

    Raises:
        InputError: a runtime the file is not for.
    """
    check_choice("runtime", runtime, RUNTIMES)
    is_graph = file.path.suffix == ".onnx"
    if runtime == "auto" or runtime == ("onnxruntime" if is_graph else "torch"):
        return file
    if runtime == "torch":
        raise InputError(f"{file.path} is an ONNX graph; runtime=onnxruntime or openvino runs it")
    graph = file.path if is_graph else file.path.parent / "model.onnx"
    if not graph.is_file():
        raise InputError(
            f"runtime={runtime} runs ONNX graphs, and {file.path} holds weights; write one with "
            "marginface export"
        )
    if not is_graph:  # the graph in a shared folder
        file = open_model(graph)
    if runtime == "onnxruntime":
        return file
    takes_bytes = file.description.layout == "uint8"
    return replace(file, build=lambda: OpenVinoNetwork(graph, takes_bytes))
