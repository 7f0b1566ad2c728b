"""`marginface embed`: the faces of many photographs as embeddings in a file."""

from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.cli.model_options import FaceOptions, ModelArgument, UseOptions, takes
from marginface.utils.errors import InputError


@takes(using=UseOptions, finding=FaceOptions)
def embed_command(
    model: ModelArgument,
    photos: Annotated[
        Path, typer.Argument(help="folder, list (a path a line, or .csv path,subject), photograph")
    ],
    out: Annotated[Path, typer.Argument(help="new .npz or .parquet file")],
    batch: Annotated[int, typer.Option(help="faces embedded at once")] = 64,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a stopped run")] = False,
    *,
    using: UseOptions,
    finding: FaceOptions,
) -> None:
    """Find, align and embed the faces of photographs; unit vectors with points, score and norm."""
    with clear_errors():
        from marginface.inference.embedding_file import embed_to_file
        from marginface.inference.photographs import photos_of
        from marginface.utils.console import progress_bar

        root, names, subjects = photos_of(photos)
        opened, options = using.load(model), finding.photos()
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
        first = failed.photo[failed.status == reason][0]
        typer.echo(f"{number} without an embedding: {reason}; the first is {first}", err=True)
    if not faces.found.any():
        raise InputError(f"no face in {photos} photographs; {out} holds why, in its column status")
    typer.echo(
        f"{int(faces.found.sum())} faces of {photos} photographs in {out}, {len(failed)} without"
    )
