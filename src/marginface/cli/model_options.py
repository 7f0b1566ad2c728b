"""Options that the commands with a model share, and the model they open."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marginface.utils.errors import InputError, MissingInputError, unknown_name

if TYPE_CHECKING:
    from marginface.inference.model import Model
    from marginface.inference.model_file import ModelFile

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="run folder, .ckpt, .pth, .safetensors, .onnx, shared folder, hf:owner/name@revision"
    ),
]


@dataclass(frozen=True)
class SourceOptions:
    """What a file of a model does not say itself."""

    checkpoint: Annotated[str, typer.Option(help="of a run folder: best or last")] = "best"
    describe: Annotated[
        list[str] | None,
        typer.Option(
            help="how images are made, for files that do not say it: key=value of color, mean, "
            "std, size, template (a .json file with five points), border"
        ),
    ] = None
    plugins: Annotated[
        list[str] | None, typer.Option(help="modules to import that define networks")
    ] = None

    def open(self, model: str) -> "ModelFile":
        """The file, not loaded yet."""
        from marginface.inference.loading import open_source

        return open_source(
            model,
            checkpoint=self.checkpoint,
            input=input_fields(self.describe),
            plugins=self.plugins or (),
        )


@dataclass(frozen=True)
class UseOptions(SourceOptions):
    """How a model is used."""

    evaluation: Annotated[
        Path | None, typer.Option(help="folder of an evaluation of this model, for its thresholds")
    ] = None
    runtime: Annotated[str, typer.Option(help="auto, torch, onnxruntime or openvino")] = "auto"
    device: Annotated[
        str, typer.Option("--device", "--devices", help="of torch: auto, cpu, cuda:0")
    ] = "auto"
    precision: Annotated[str, typer.Option(help="of torch: 32-true, bf16-mixed or 16-mixed")] = (
        "32-true"
    )
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="add the mirror image; else as evaluated"),
    ] = None

    def load(self, model: str, **photos: Any) -> "Model":
        """The model; `photos` are fields of `PhotoOptions`."""
        from marginface.inference.loading import load

        return load(
            model,
            device=self.device,
            runtime=self.runtime,  # type: ignore[arg-type]  # checked there
            checkpoint=self.checkpoint,
            flip=self.flip,
            precision=self.precision,  # type: ignore[arg-type]  # checked there
            input=input_fields(self.describe),
            evaluation=self.evaluation,
            plugins=self.plugins or (),
            **photos,
        )


@dataclass(frozen=True)
class FaceOptions:
    """How faces are found in photographs."""

    detector: Annotated[
        str | None,
        typer.Option(
            help="yunet, mtcnn, package.module:function, or none (aligned faces); else as the "
            "model says, yunet"
        ),
    ] = None
    yunet: Annotated[
        Path | None, typer.Option(help="YuNet's ONNX file; MARGINFACE_YUNET otherwise")
    ] = None
    detector_size: Annotated[
        int | None, typer.Option(help="long side at which YuNet looks, 640 pixels")
    ] = None
    tiles: Annotated[
        int, typer.Option(help="for YuNet and crowds: parts along each side to look at as well")
    ] = 1
    landmarks: Annotated[Path | None, typer.Option(help="file with five points of each face")] = (
        None
    )
    aligned: Annotated[bool, typer.Option("--aligned", help="photographs are aligned faces")] = (
        False
    )
    face: Annotated[
        str | None,
        typer.Option(
            help="of several: largest, central, only (verify, enroll) or all (embed, identify)"
        ),
    ] = None
    min_face: Annotated[
        float, typer.Option(help="pixels between the eyes or down to the mouth")
    ] = 10.0
    max_misfit: Annotated[
        float, typer.Option(help="largest distance to the template, pixels at 112")
    ] = 19.0

    def photos(self) -> dict[str, Any]:
        """Fields of `PhotoOptions`.

        Raises:
            InputError: options that exclude each other.
        """
        if self.aligned and self.landmarks is not None:
            raise InputError(
                "--aligned and --landmarks exclude each other: aligned faces need no points"
            )
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        if found.pop("aligned"):
            found["detector"] = "none"
        return {name: value for name, value in found.items() if value is not None}


def takes(**groups: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: a command takes the fields of dataclasses as options.

    Args:
        groups: dataclasses by the name of the command's keyword argument that gets one.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        parameters = [p for p in own.parameters.values() if p.name not in groups]
        for kind in groups.values():
            hints = inspect.get_annotations(kind, eval_str=True)
            for base in kind.__mro__[1:-1]:
                hints = inspect.get_annotations(base, eval_str=True) | hints
            parameters += [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=hints[field.name],
                )
                for field in fields(kind)
            ]

        @wraps(command)
        def with_groups(**given: Any) -> None:
            made = {
                name: kind(**{field.name: given.pop(field.name) for field in fields(kind)})
                for name, kind in groups.items()
            }
            command(**given, **made)

        with_groups.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_groups.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return with_groups

    return decorate


_DESCRIBED = ("color", "mean", "std", "size", "template", "border")


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
        if key not in _DESCRIBED:
            raise InputError(unknown_name("--describe", key, _DESCRIBED))
        fields[key] = _field(key, value)
    return fields


def _field(key: str, value: str) -> Any:
    if key == "template" and not value.lstrip().startswith("["):
        path = Path(value)
        if not path.is_file():
            raise MissingInputError(f"--describe template={value}: no such file")
        value = path.read_text(errors="replace")
    if key == "color":
        return value
    try:
        read = json.loads(value if value.startswith("[") or "," not in value else f"[{value}]")
    except ValueError as error:
        raise InputError(f"--describe {key}={value[:60]}: expected numbers") from error
    if key in ("mean", "std") and not isinstance(read, list):
        return [read] * 3
    return read
