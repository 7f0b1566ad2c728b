"""Models of a few lines, which tell the pictures of `write_face` apart without any training."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import marginface
from marginface.inference.model import Model

STATED: dict[str, Any] = {"color": "rgb", "mean": [127.5] * 3, "std": [127.5] * 3}


def write_onnx(path: Path, batch: int | str = "n", side: int | str = 32, width: int = 5) -> Any:
    """A graph that averages an image over 4 x 4 and multiplies the channels by a matrix.

    Returns:
        The (48, width) matrix.
    """
    weight = np.random.default_rng(0).standard_normal((48, width)).astype(np.float32)
    tile = side // 4 if isinstance(side, int) else 8
    nodes = [
        helper.make_node(
            "AveragePool", ["data"], ["pooled"], kernel_shape=[tile, tile], strides=[tile, tile]
        ),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, width])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return weight


def small_model(folder: Path, **options: Any) -> Model:
    """Such a graph of 112 pixels and 64 numbers, opened for aligned faces."""
    path = folder / "small.onnx"
    if not path.is_file():
        write_onnx(path, side=112, width=64)
    return marginface.load(path, input=STATED, **({"detector": "none"} | options))


def random_faces(people: int, images: int, seed: int = 0, noise: float = 12.0) -> np.ndarray:
    """(people, images, 112, 112, 3): pictures that differ more between people than within one."""
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (people, 6, 6, 3)).astype(np.float32)
    base = [cv2.resize(c, (112, 112), interpolation=cv2.INTER_CUBIC) for c in coarse]
    varied = np.repeat(np.array(base)[:, None], images, 1)
    shift = rng.normal(0, noise, (people, images, 4, 4, 3)).repeat(28, 2).repeat(28, 3)
    return np.clip(varied + shift, 0, 255).astype(np.uint8)
