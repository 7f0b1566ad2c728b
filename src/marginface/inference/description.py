"""What a model says about itself, in ONNX files and shared folders."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from marginface.data.alignment.template import Points, standard_template
from marginface.data.preprocessing import MIDDLE, Color
from marginface.metrics.thresholds import Threshold
from marginface.utils.errors import InputError

DESCRIPTION_KEY = "marginface"  # of an ONNX file's metadata
_LONGEST = 1 << 24  # characters of JSON that are read

Byte = Annotated[float, Field(ge=-1e4, le=1e4, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)]
Coordinate = Annotated[float, Field(ge=-4096, le=8192, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class NetworkInput(_Part):
    """How images become what a network takes.

    Attributes:
        color: order of the channels it was trained in.
        mean, std: of each of these channels, in units of 0 to 255: (x - mean) / std.
        size: S, side of the square images in pixels.
        template: where the five points of an aligned face are, see `alignment.template.Points`.
        border: value of pixels beyond the photograph.
        interpolation: of the warp.
    """

    color: Color = "rgb"
    mean: tuple[Byte, Byte, Byte] = MIDDLE
    std: tuple[Positive, Positive, Positive] = MIDDLE
    size: Annotated[int, Field(gt=0, le=4096)] = 112
    template: tuple[tuple[Coordinate, Coordinate], ...]
    border: Annotated[int, Field(ge=0, le=255)] = 0
    interpolation: Literal["bilinear"] = "bilinear"

    @model_validator(mode="before")
    @classmethod
    def _standard_template(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("template") is None:
            size = given.get("size", 112)
            if isinstance(size, int) and size > 0:
                given = {**given, "template": standard_template(size).tolist()}
        return given

    @model_validator(mode="after")
    def _five_points(self) -> Self:
        if len(self.template) != 5:
            raise ValueError(f"template has {len(self.template)} points, expected 5")
        return self

    @property
    def points(self) -> Points:
        """The template, (5, 2)."""
        return np.array(self.template)

    @property
    def aligned_size(self) -> int:
        """Side of the aligned images it is given: S, or 112 where its template is another one.

        Aligned faces are on the standard template, and are warped from that onto a template of the
        network's own.
        """
        return 112 if self.has_own_template else self.size

    @property
    def has_own_template(self) -> bool:
        """Whether faces stand otherwise than on the standard template of its size."""
        return not np.allclose(self.points, standard_template(self.size), atol=1e-3)


class DetectorFacts(_Part):
    """What found the faces: its name, sha256 of its file, and the long side it looked at."""

    name: str
    sha256: str | None = None
    size: int | None = None


class Description(_Part):
    """Everything a program needs besides the weights.

    Attributes:
        digest: SHA-256 of the weights by name, which other files with these weights share.
        backbone: what the network is built with; None for a network of others.
        input: see `NetworkInput`.
        layout: "float" takes (B, 3, S, S) normalized and gives the embedding as it is; "uint8"
            takes (B, S, S, 3) RGB bytes and gives unit vectors, the mirror image added if `flip`.
        precision: of the weights: "fp32", "fp16" or "int8".
        flip: whether embeddings are those of image and mirror image added.
        thresholds: by false match rate.
        min_norm: norm below which 1 % of the embeddings of an evaluation are.
        min_norm_flip: whether these were of image and mirror image added.
        training: data, head and run, as far as known.
        check: what was measured when the file was written.
    """

    format: Literal[1] = 1
    library_name: Literal["marginface"] = "marginface"
    version: str = ""
    digest: str = ""
    backbone: dict[str, Any] | None = None
    input: NetworkInput
    layout: Literal["float", "uint8"] = "float"
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    detector: DetectorFacts = DetectorFacts(name="yunet", size=640)
    flip: bool = True
    metric: Literal["cosine"] = "cosine"
    thresholds: tuple[Threshold, ...] = ()
    min_norm: float | None = None
    min_norm_flip: bool = True
    training: dict[str, Any] = {}
    check: dict[str, Any] = {}

    def to_json(self) -> str:
        """As it stands in files."""
        return self.model_dump_json(indent=1)


def network_input(given: dict[str, Any], where: str) -> NetworkInput:
    """A checked `NetworkInput`.

    Raises:
        InputError: a key or value that is not one.
    """
    unknown = sorted(given.keys() - NetworkInput.model_fields.keys())
    if unknown:
        known = ", ".join(NetworkInput.model_fields)
        raise InputError(f"{where}: there is no input.{unknown[0]}; known are {known}")
    try:
        found = NetworkInput.model_validate(given)
        if max(found.std) < 1:
            raise InputError(
                f"{where}: input.std={found.std[0]:g} is in units of 0 to 255, as mean is; for "
                f"(x/255 - {found.mean[0]:g})/{found.std[0]:g} they are mean="
                f"{255 * found.mean[0]:g} and std={255 * found.std[0]:g}"
            )
        return found
    except ValidationError as error:
        raise InputError(f"{where}: {_first_problem(error, 'input')}") from error


def read_description(text: str, where: str | Path) -> Description:
    """A description from JSON.

    Raises:
        InputError: anything else; nothing in it is run.
    """
    if len(text) > _LONGEST:
        raise InputError(f"{where}: a description of {len(text)} characters is not one of ours")
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise InputError(f"{where}: expected a description, got {type(content).__name__}")
        if content.get("format") != 1:
            raise InputError(
                f"{where}: format {content.get('format')!r} of descriptions, this version reads 1; "
                "it may be of a newer marginface"
            )
        return Description.model_validate(content)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{where} is not readable JSON ({type(error).__name__})") from error
    except ValidationError as error:
        raise InputError(f"{where}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError, within: str = "") -> str:
    problem = error.errors()[0]
    place = ".".join(map(str, ((within,) if within else ()) + problem["loc"]))
    got = repr(problem["input"])
    return f"{place}: {problem['msg']}, got {got if len(got) < 80 else got[:77] + '...'}"
