"""Files that were made to do harm: nothing outside their folder is read, nothing in them is run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import marginface
from helpers.small_models import STATED, write_onnx
from marginface.inference.description import read_description
from marginface.inference.onnx import external_weight_files
from marginface.utils.errors import InputError


def with_weights_in(place: str, path: Path) -> None:
    """A graph whose weights are in another file."""
    weight = numpy_helper.from_array(np.ones((48, 5), np.float32), "weight")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", place
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("MatMul", ["f", "weight"], ["y"]),
        ],
        "n",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 5])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def test_weights_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    secret, path = tmp_path / "secret.bin", tmp_path / "inside" / "net.onnx"
    secret.write_bytes(np.ones((48, 5), np.float32).tobytes())
    (tmp_path / "inside" / "link.bin").symlink_to(secret)
    for place in ("../secret.bin", str(secret), "link.bin"):
        with_weights_in(place, path)
        with pytest.raises(InputError, match="not a readable ONNX file"):
            marginface.load(path, input=STATED)
        with pytest.raises(InputError, match="outside its folder; they are not read"):
            external_weight_files(path)
    (tmp_path / "inside" / "own.bin").write_bytes(secret.read_bytes())
    with_weights_in("own.bin", path)
    assert marginface.load(
        path, input=STATED | {"template": [[1, 1], [3, 1], [2, 2], [1, 3], [3, 3]]}
    )


def test_tensors_that_claim_all_memory(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1 << 24, 1 << 20], np.int64), "shape")
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
            helper.make_node("ReduceSum", ["huge"], ["one"], keepdims=0),
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Add", ["f", "one"], ["y"]),
        ],
        "n",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 48])],
        [shape],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (tmp_path / "huge.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="huge.onnx|the ONNX graph fails"):
        marginface.load(tmp_path / "huge.onnx", input=STATED).embedding_size  # noqa: B018


def test_descriptions_that_lie(tmp_path: Path) -> None:
    good: dict[str, Any] = {"format": 1, "input": {"size": 112}}
    assert read_description(json.dumps(good), "x").input.size == 112
    for change, words in (
        ({"format": 2}, "format 2 of descriptions, this version reads 1"),
        ({"input": {"size": 10**9}}, "input.size: Input should be less than or equal to 4096"),
        ({"input": {"size": -1}}, "input.size"),
        ({"input": {"mean": ["a", 1, 1]}}, "input.mean.0"),
        ({"input": {"mean": [float("nan"), 1, 1]}}, "input.mean.0"),
        ({"input": {"template": [[1e9, 0]] * 5}}, "input.template.0.0"),
        ({"layout": "chw"}, "layout"),
        ({"thresholds": [{"fmr": 1}]}, "thresholds.0"),
        ({"library_name": "other"}, "library_name"),
    ):
        with pytest.raises(InputError, match=words):
            read_description(json.dumps(good | change), "x")
    for text in ("[" * 100_000, "nothing", "[1]", "\0"):
        with pytest.raises(InputError, match="^x"):
            read_description(text, "x")
    # In the metadata of a graph, against its input.
    write_onnx(tmp_path / "net.onnx", side=112)
    graph = onnx.load(str(tmp_path / "net.onnx"))
    entry = graph.metadata_props.add()
    entry.key, entry.value = "marginface", json.dumps(good | {"layout": "uint8"})
    onnx.save(graph, str(tmp_path / "net.onnx"))
    with pytest.raises(InputError, match="its metadata says uint8 images of 112 pixels"):
        marginface.load(tmp_path / "net.onnx")
