"""Writes a folder to share, see `shared_folder`."""

import hashlib
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from marginface.inference.export_check import Check
from marginface.inference.export_head import export_head
from marginface.inference.export_onnx import ExportOptions, described, export_onnx
from marginface.inference.model_card import Card, card_text
from marginface.inference.model_file import ModelFile
from marginface.inference.shared_folder import (
    CARD,
    CONFIG,
    GRAPH,
    HEAD,
    LICENSE,
    METRICS,
    WEIGHTS,
)
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.files import read_json, write_json


@dataclass(frozen=True)
class FolderOptions:
    """What a shared folder holds besides the weights.

    Attributes:
        license: SPDX id of the weights' license, or "unknown".
        license_file: its text.
        training_data: name of the data and its terms.
        with_head: class centers too; they are templates of the people trained on.
        onnx: how model.onnx is made; its precision fp16 is that of the weights as well.
    """

    license: str
    license_file: Path | None = None
    training_data: str | None = None
    with_head: bool = False
    onnx: ExportOptions = field(default_factory=ExportOptions)


def write_shared_folder(model: ModelFile, target: Path, options: FolderOptions) -> Check:
    """Write the folder `target`, which appears when all of it is there.

    Raises:
        InputError: a target that exists, no license, or a model that has no weights to write.
        ExportRefusedError: the check of the graph failed; nothing was written.
    """
    if target.exists():
        raise InputError(f"{target} exists; choose another name, nothing is overwritten")
    if model.path.suffix == ".onnx":
        raise InputError(
            f"{model.path} is a graph; a shared folder holds weights. Export the run or checkpoint"
        )
    if options.license_file is not None and not options.license_file.is_file():
        raise MissingInputError(f"no license file {options.license_file}")
    if options.onnx.precision == "int8":
        raise InputError("a shared folder holds fp32 or fp16; export int8 to a file x.onnx")
    partial = target.with_name(f".{target.name}.exporting")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=False)
        check = _fill(partial, model, options)
        partial.replace(target)
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return check


def _fill(folder: Path, model: ModelFile, options: FolderOptions) -> Check:
    metrics: dict[str, float] = {}
    if options.onnx.evaluation is not None:
        result = options.onnx.evaluation / "result.json"
        if not result.is_file():
            raise MissingInputError(f"no {result}; give the whole folder of the evaluation")
        metrics = read_json(result)
        write_json(folder / METRICS, metrics)
    if options.with_head:
        export_head(model.path, folder / HEAD)
    network = model.build()
    description = described(model, network, options.onnx).model_copy(update={"layout": "float"})
    training = dict(description.training)
    if options.training_data is not None:
        training["data"] = options.training_data
    description = description.model_copy(update={"training": training})
    weights = _weights(network, half=options.onnx.precision == "fp16")
    content = save(weights, {"format": "pt"})
    (folder / WEIGHTS).write_bytes(content)
    described_model = replace(model, description=description, build=lambda: network)
    evaluated = replace(options.onnx, evaluation=None)  # its thresholds are in the description
    check = export_onnx(described_model, folder / GRAPH, evaluated)
    facts = description.model_dump(mode="json")
    facts["weights_sha256"] = hashlib.sha256(content).hexdigest()
    facts["license"] = options.license
    write_json(folder / CONFIG, facts)
    if options.license_file is not None:
        shutil.copyfile(options.license_file, folder / LICENSE)
    card = Card(description, metrics, options.license, options.with_head, sum(
        tensor.numel() for tensor in weights.values()
    ))  # fmt: skip
    (folder / CARD).write_text(card_text(card))
    return check


def _weights(network: nn.Module, *, half: bool) -> dict[str, torch.Tensor]:
    state = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    if not half:
        return state
    return {n: v.half() if v.dtype == torch.float32 else v for n, v in state.items()}
