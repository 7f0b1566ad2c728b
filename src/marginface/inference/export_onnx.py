"""Exports a network to one ONNX file that says how it is used, checked before it has its name."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from marginface.inference.aligned_faces import read_aligned
from marginface.inference.description import DESCRIPTION_KEY, Description
from marginface.inference.embedder import Embedder
from marginface.inference.evaluation_folder import read_evaluation
from marginface.inference.export_check import Check, Embed, Floats, Precision, check_graph
from marginface.inference.model_file import ModelFile
from marginface.inference.onnx import open_onnx
from marginface.inference.onnx_graph import (
    DEFAULT_OPSET,
    PixelNetwork,
    graph_bytes,
    make_graph,
    without_traces,
)
from marginface.inference.onnx_precision import FEWEST_FACES, Quantization, to_fp16, to_int8
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.optional_packages import require_package

Layout = Literal["float", "uint8"]
_CALIBRATED_ON, _CHECKED_ON, _NOISE = 500, 1_000, 32


class ExportRefusedError(Exception):
    """The graph does not compute what the network does; it was not written."""


@dataclass(frozen=True)
class ExportOptions:
    """How a network is exported.

    Attributes:
        layout: see `Description.layout`.
        flip: add the mirror image, in the uint8 layout; None: as evaluated.
        opset: of ONNX, 17 to 20.
        precision: "fp32", "fp16", or "int8".
        calibration: folder of aligned faces for int8.
        quantization: of int8.
        faces: folder of aligned faces to check with; noise otherwise.
        evaluation: folder of an evaluation, whose thresholds the file carries.
        force: keep a file that the check refuses.
    """

    layout: Layout = "float"
    flip: bool | None = None
    opset: int = DEFAULT_OPSET
    precision: Precision = "fp32"
    calibration: Path | None = None
    quantization: Quantization = "per-channel"
    faces: Path | None = None
    evaluation: Path | None = None
    force: bool = False


def export_onnx(model: ModelFile, target: Path, options: ExportOptions) -> Check:
    """Write `target`, and return what was measured.

    Args:
        model: weights of a network, or a float ONNX file to bring to fp16 or int8.
        target: new .onnx file.

    Raises:
        InputError: options that do not go together, a target that exists or cannot be written.
        ExportRefusedError: the check failed; no file was written.
    """
    _check_options(model, target, options)
    network = model.build()
    given = described(model, network, options)
    flip = given.flip if options.layout == "uint8" else False
    images, people, what = _check_images(given, options)  # what is missing is said first
    calibration = _calibration(given, options) if options.precision == "int8" else None
    graph = _graph(model, network, given, options)
    if options.precision == "fp16":
        graph = to_fp16(graph)
    elif calibration is not None:
        graph = to_int8(graph, calibration, options.quantization)
    without_traces(graph)
    partial = target.with_name(f".{target.name}.exporting")
    try:
        _write(graph, given, partial)
        reference, exported = (
            _on_cpu(network, given, flip),
            _on_cpu(open_onnx(partial).build(), given, flip=False),
        )
        check = check_graph(reference, exported, images, people, what)
        problems = check.problems(options.precision) + _unsuitable(options)
        if problems and not options.force:
            raise ExportRefusedError(
                f"{target} was not written: {'; '.join(problems)}. Measured: {check.words()}. "
                "--force writes it all the same"
            )
        facts = check.facts() | ({"refused": problems} if problems else {})
        _write(graph, given.model_copy(update={"check": facts}), partial)
        partial.replace(target)
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return check


def described(model: ModelFile, network: nn.Module, options: ExportOptions) -> Description:
    """What an exported file says of itself.

    Raises:
        InputError: an evaluation of another network.
    """
    stated = model.description
    flip = stated.flip if options.flip is None else options.flip
    measured = {}
    if options.evaluation is not None:
        measured = read_evaluation(options.evaluation, model)
    return stated.model_copy(
        update={
            "version": version("marginface"),
            "layout": options.layout,
            "precision": options.precision,
            "flip": flip,
            "digest": model.digest(network),
        }
        | measured
    )


def _check_options(model: ModelFile, target: Path, options: ExportOptions) -> None:
    require_package("onnxruntime", extra="export")
    if target.suffix != ".onnx":
        raise InputError(f"{target}: an ONNX file ends in .onnx")
    if target.exists():
        raise InputError(f"{target} exists and would be overwritten; choose another name")
    if options.layout == "float" and options.flip is not None:
        raise InputError(
            "--flip and --no-flip go with --input uint8: the float graph takes one image and gives "
            "its embedding as it is"
        )
    if options.precision == "int8" and options.calibration is None:
        if options.quantization != "dynamic":
            raise InputError(
                f"--precision int8 needs --calibration FOLDER, {FEWEST_FACES} to "
                f"{_CALIBRATED_ON} aligned faces"
            )
    elif options.precision != "int8" and options.calibration is not None:
        raise InputError("--calibration goes with --precision int8")
    if model.path.suffix == ".onnx":
        if options.precision == "fp32":
            raise InputError(
                f"{model.path} is an ONNX file already; --precision fp16 or int8 makes another"
            )
        if model.description.precision != "fp32":
            raise InputError(
                f"{model.path} is in {model.description.precision} already; take the file in fp32"
            )
        if options.flip not in (None, model.description.flip):
            does = "adds the mirror image" if model.description.flip else "adds no mirror image"
            raise InputError(f"{model.path} {does} itself, and stays so; export the run otherwise")
        if options.layout != model.description.layout:
            raise InputError(
                f"{model.path} takes {model.description.layout} images; leave --input "
                f"{model.description.layout}"
            )
    if not target.parent.is_dir():
        raise MissingInputError(f"no folder {target.parent} for {target.name}; make it first")


def _unsuitable(options: ExportOptions) -> list[str]:
    if options.precision != "int8" or options.quantization == "per-channel":
        return []
    return [
        f"int8 {options.quantization} is not kept, only per-channel is: with some networks it "
        "raises the scores of strangers (docs/deployment.md has figures)"
    ]


def _graph(model: ModelFile, network: nn.Module, given: Description, options: ExportOptions) -> Any:
    if model.path.suffix == ".onnx":
        import onnx

        return onnx.load(str(model.path))
    module = network
    if options.layout == "uint8":
        module = PixelNetwork(network, given.input, given.flip)
    as_bytes = options.layout == "uint8"
    return make_graph(module, given.input.size, as_bytes=as_bytes, opset=options.opset)


def _check_images(
    given: Description, options: ExportOptions
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None, str]:
    folder = options.faces
    if folder is None:
        size = given.input.size
        noise = np.random.default_rng(0).integers(0, 256, (_NOISE, size, size, 3), np.uint8)
        return noise, None, "images of noise"
    images, people = read_aligned(folder, given.input, _CHECKED_ON)
    if len(images) < _NOISE:
        raise InputError(f"{folder} holds {len(images)} faces, the check needs {_NOISE}")
    return images, people, "faces"


def _calibration(given: Description, options: ExportOptions) -> NDArray[Any] | None:
    """Images as the graph takes them."""
    if options.calibration is None:
        return None
    images, _ = read_aligned(options.calibration, given.input, _CALIBRATED_ON)
    return images if options.layout == "uint8" else network_images(images, given)


def network_images(images: NDArray[np.uint8], given: Description) -> Floats:
    """uint8 (N, S, S, 3) RGB to float32 (N, 3, S, S) as the network takes them."""
    x = images.astype(np.float32)
    if given.input.color == "bgr":
        x = x[..., ::-1]
    mean, std = (np.array(v, np.float32) for v in (given.input.mean, given.input.std))
    return np.ascontiguousarray(((x - mean) / std).transpose(0, 3, 1, 2))


def _write(graph: Any, description: Description, path: Path) -> None:
    del graph.metadata_props[:]
    entry = graph.metadata_props.add()
    entry.key, entry.value = DESCRIPTION_KEY, description.to_json()
    with path.open("wb") as file:
        file.write(graph_bytes(graph))


def _on_cpu(network: nn.Module, given: Description, flip: bool) -> Embed:
    """uint8 (B, S, S, 3) RGB to (B, D) embeddings, with images as the description says."""
    taken = given.input
    embedder = Embedder(
        network,
        taken.size,
        taken.color,
        flip=flip,
        devices=["cpu"],
        mean=taken.mean,
        std=taken.std,
    )

    def run(images: NDArray[np.uint8]) -> Floats:
        found: Floats = embedder(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
        return found

    return run
