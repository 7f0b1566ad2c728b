"""`marginface embed`: the faces of many photographs as embeddings in a file."""

from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.cli.model_options import (
    Aligned,
    CheckpointOption,
    Describe,
    DetectorOption,
    DetectorSize,
    Device,
    Face,
    Flip,
    Landmarks,
    MaxMisfit,
    MinFace,
    ModelArgument,
    Plugins,
    Precision,
    Runtime,
    Yunet,
    input_fields,
    photo_options,
)
from marginface.utils.errors import InputError


def embed_command(
    model: ModelArgument,
    photos: Annotated[
        Path, typer.Argument(help="folder, list (a path a line, or .csv path,subject), photograph")
    ],
    out: Annotated[Path, typer.Argument(help="new .npz or .parquet file")],
    batch: Annotated[int, typer.Option(help="faces embedded at once")] = 64,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a stopped run")] = False,
    runtime: Runtime = "auto",
    device: Device = "auto",
    precision: Precision = "32-true",
    flip: Flip = None,
    checkpoint: CheckpointOption = "best",
    describe: Describe = None,
    plugins: Plugins = None,
    detector: DetectorOption = "yunet",
    yunet: Yunet = None,
    detector_size: DetectorSize = 640,
    landmarks: Landmarks = None,
    aligned: Aligned = False,
    face: Face = "all",
    min_face: MinFace = 10.0,
    max_misfit: MaxMisfit = 19.0,
) -> None:
    """Find, align and embed the faces of photographs; unit vectors with points, score and norm."""
    with clear_errors():
        from marginface.inference.embedding_file import embed_to_file
        from marginface.inference.model import load
        from marginface.inference.photographs import photos_of
        from marginface.utils.console import progress_bar

        options = photo_options(
            detector, yunet, detector_size, landmarks, aligned, face, min_face, max_misfit
        )
        root, names, subjects = photos_of(photos)
        opened = load(
            model, device=device, runtime=runtime, checkpoint=checkpoint, flip=flip,  # type: ignore[arg-type]
            precision=precision, input=input_fields(describe), plugins=plugins or (),  # type: ignore[arg-type]
        )  # fmt: skip
        with progress_bar() as bar:
            task = bar.add_task("photographs", total=len(names))
            faces = embed_to_file(
                opened, root, names, out, subjects=subjects, resume=resume, batch_size=batch,
                on_photo=lambda done: bar.update(task, completed=done), **options,
            )  # fmt: skip
        _report(faces, len(names), out)


def _report(faces: "object", photos: int, out: Path) -> None:
    from collections import Counter

    from marginface.inference.photographs import Faces

    assert isinstance(faces, Faces)
    failed = faces.take(~faces.found)
    for reason, number in Counter(failed.status.tolist()).most_common(5):
        typer.echo(f"{number} without an embedding: {reason}", err=True)
    if not faces.found.any():
        raise InputError(f"no face in {photos} photographs; {out} holds why, in its column status")
    typer.echo(
        f"{int(faces.found.sum())} faces of {photos} photographs in {out}, {len(failed)} without"
    )
