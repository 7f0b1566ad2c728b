"""ONNX graphs in 16 and in 8 bits."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from marginface.inference.onnx_graph import without_traces
from marginface.utils.errors import InputError, first_line
from marginface.utils.optional_packages import require_package

Quantization = Literal["per-channel", "per-tensor", "dynamic"]
FEWEST_FACES = 100  # to calibrate with
_AT_ONCE = 8
_PER_CHANNEL = 13  # opset
# Lengths of embeddings of several hundred do not fit 16 bits when they are squared.
_KEPT_IN_FP32 = ["ReduceL2", "ReduceSumSquare", "Pow", "Sqrt", "Div", "Clip", "LpNormalization"]


def graph_precision(path: Path) -> str:
    """What most weights of a graph are: "fp32", "fp16" or "int8"."""
    onnx = require_package("onnx", extra="export")
    graph = onnx.load(str(path), load_external_data=False).graph
    names = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16",
             onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "int8"}  # fmt: skip
    found: dict[str, int] = {}
    for tensor in graph.initializer:
        if tensor.data_type in names:
            name = names[tensor.data_type]
            found[name] = found.get(name, 0) + int(np.prod(tensor.dims))
    return max(found, key=lambda name: found[name]) if found else "fp32"


def to_fp16(graph: Any) -> Any:
    """Weights and products in float16, images and embeddings in float32 as before."""
    require_package("onnxruntime", extra="export")
    from onnxruntime.transformers.float16 import (
        DEFAULT_OP_BLOCK_LIST,
        convert_float_to_float16,
    )

    logging.getLogger("onnxruntime.transformers.float16").setLevel(logging.ERROR)
    return convert_float_to_float16(
        graph, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_KEPT_IN_FP32]
    )


def to_int8(graph: Any, images: NDArray[Any] | None, kind: Quantization) -> Any:
    """Convolutions and products in int8.

    Args:
        graph: in float32.
        images: (N, ...) what the graph takes, of aligned faces; the ranges of activations are
            measured on them. Not needed for "dynamic".
        kind: "per-channel" measures activations and scales the weights of each channel;
            "per-tensor" scales whole tensors; "dynamic" measures nothing.

    Raises:
        InputError: a graph that onnxruntime cannot quantize, or too few images.
    """
    require_package("onnxruntime", extra="export")
    import onnx
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = graph.graph.input[0].name
    with tempfile.TemporaryDirectory() as folder:
        source, ready, target = (str(Path(folder, n)) for n in ("a.onnx", "b.onnx", "c.onnx"))
        onnx.save(graph, source)
        logging.disable(logging.WARNING)  # onnxruntime's advice on what it does by itself
        try:
            if kind != "dynamic":
                graph = _with_axes(graph)
                onnx.save(graph, source)
            quant_pre_process(source, ready, skip_symbolic_shape=True)
            if kind == "dynamic":
                q.quantize_dynamic(ready, target, weight_type=q.QuantType.QInt8)
            else:
                if images is None or len(images) < FEWEST_FACES:
                    count = 0 if images is None else len(images)
                    raise InputError(
                        f"int8 needs {FEWEST_FACES} aligned faces or more to calibrate with, got "
                        f"{count}; --calibration FOLDER"
                    )
                # Signed on both sides: products of unsigned ones overflow on CPUs without VNNI.
                q.quantize_static(
                    ready,
                    target,
                    _reader(name, images),
                    quant_format=q.QuantFormat.QDQ,
                    per_channel=kind == "per-channel",
                    activation_type=q.QuantType.QInt8,
                    weight_type=q.QuantType.QInt8,
                )
            quantized = onnx.load(target)
        except InputError:
            raise
        except Exception as error:  # of onnxruntime
            raise InputError(f"onnxruntime cannot quantize it: {first_line(error)}") from error
        finally:
            logging.disable(logging.NOTSET)
    without_traces(quantized)
    return quantized


def _with_axes(graph: Any) -> Any:
    """The graph in an opset whose quantized tensors have a scale per channel (13 or later)."""
    from onnx import version_converter

    own = next(entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))
    return graph if own >= _PER_CHANNEL else version_converter.convert_version(graph, _PER_CHANNEL)


def _reader(name: str, images: NDArray[Any]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Faces(CalibrationDataReader):
        def __init__(self) -> None:
            self._parts: Iterator[NDArray[Any]] = iter(
                np.array_split(images, max(len(images) // _AT_ONCE, 1))
            )

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            part = next(self._parts, None)
            return None if part is None else {name: part}

    return Faces()
