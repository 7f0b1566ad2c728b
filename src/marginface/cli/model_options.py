"""Options that the commands with a model share, and the model they open."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from marginface.utils.errors import InputError, MissingInputError

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="run folder, .ckpt, .pth, .safetensors, .onnx, shared folder, hf:owner/name@revision"
    ),
]
Runtime = Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino")]
Device = Annotated[str, typer.Option(help="of torch: auto, cpu, cuda:0")]
Precision = Annotated[str, typer.Option(help="of torch: 32-true, bf16-mixed or 16-mixed")]
Flip = Annotated[
    bool | None, typer.Option("--flip/--no-flip", help="add the mirror image; else as evaluated")
]
CheckpointOption = Annotated[str, typer.Option(help="of a run folder: best or last")]
Describe = Annotated[
    list[str] | None,
    typer.Option(
        help="how images are made, for files that do not say it: key=value of color, mean, std, "
        "size, template (a .json file with five points), border"
    ),
]
Plugins = Annotated[list[str] | None, typer.Option(help="modules to import that define networks")]
EvaluationOption = Annotated[
    Path | None, typer.Option(help="folder of an evaluation of this model, for its thresholds")
]

DetectorOption = Annotated[
    str, typer.Option(help="yunet, mtcnn, package.module:function, or none (aligned faces)")
]
Yunet = Annotated[Path | None, typer.Option(help="YuNet's ONNX file; MARGINFACE_YUNET otherwise")]
DetectorSize = Annotated[int, typer.Option(help="long side at which YuNet looks, in pixels")]
Landmarks = Annotated[Path | None, typer.Option(help="file with five points of each face")]
Aligned = Annotated[bool, typer.Option("--aligned", help="photographs are aligned faces")]
Face = Annotated[str, typer.Option(help="of several faces: largest, central, only, all")]
MinFace = Annotated[float, typer.Option(help="pixels between the eyes or down to the mouth")]
MaxMisfit = Annotated[float, typer.Option(help="largest distance to the template, pixels at 112")]


def photo_options(
    detector: str,
    yunet: Path | None,
    detector_size: int,
    landmarks: Path | None,
    aligned: bool,
    face: str,
    min_face: float,
    max_misfit: float,
) -> dict[str, Any]:
    """Fields of `PhotoOptions`.

    Raises:
        InputError: options that exclude each other.
    """
    if aligned and landmarks is not None:
        raise InputError(
            "--aligned and --landmarks exclude each other: aligned faces need no points"
        )
    return {
        "detector": "none" if aligned else detector,
        "yunet": yunet,
        "detector_size": detector_size,
        "landmarks": landmarks,
        "face": face,
        "min_face": min_face,
        "max_misfit": max_misfit,
    }


def input_fields(given: list[str] | None) -> dict[str, Any] | None:
    """`--describe key=value` as fields of `NetworkInput`.

    Raises:
        InputError: no key=value, or a template file that cannot be read.
    """
    if not given:
        return None
    fields: dict[str, Any] = {}
    for word in given:
        key, sign, value = word.partition("=")
        if not sign or not value:
            raise InputError(f"--describe {word}: expected key=value, such as mean=127.5")
        fields[key] = _field(key, value)
    return fields


def _field(key: str, value: str) -> Any:
    if key == "template" and not value.lstrip().startswith("["):
        path = Path(value)
        if not path.is_file():
            raise MissingInputError(f"--describe template={value}: no such file")
        value = path.read_text()
    if key == "color":
        return value
    try:
        read = json.loads(value if value.startswith("[") or "," not in value else f"[{value}]")
    except ValueError as error:
        raise InputError(f"--describe {key}={value[:60]}: expected numbers") from error
    if key in ("mean", "std") and not isinstance(read, list):
        return [read] * 3
    return read
