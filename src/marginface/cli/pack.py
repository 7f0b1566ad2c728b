"""`marginface pack`: faces of any format into another, and verification pairs into a .bin file."""

from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.data.formats import list_formats, list_writers, open_faces
from marginface.data.packing import pack, pack_pairs
from marginface.utils.console import progress_bar
from marginface.utils.errors import check_choice


def pack_command(
    source: Annotated[Path, typer.Argument(help="faces of any format, or a file of pairs")],
    target: Annotated[Path, typer.Argument(help="new folder, or new .bin file for pairs")],
    format: Annotated[
        str, typer.Option(help=f"to write: {', '.join(list_writers())}; pairs become a .bin")
    ] = "recordio",
    source_format: Annotated[
        str | None,
        typer.Option(help=f"to read, when not found out: {', '.join(list_formats())}"),
    ] = None,
    label_gaps: Annotated[
        str, typer.Option(help="identities without images: refuse, or close (renumber)")
    ] = "refuse",
    faulty: Annotated[
        str, typer.Option(help="images that cannot be decoded: stop, skip, or copy unseen")
    ] = "stop",
    root: Annotated[Path | None, typer.Option(help="folder of the images of a pair list")] = None,
) -> None:
    """Copy faces into another format, byte for byte, ordered by identity.

    Streaming and resumable: TARGET appears when it is whole; repeat the command after a stop.
    """
    with clear_errors():
        check_choice("--faulty", faulty, ("stop", "skip", "copy"))
        check_choice("--label-gaps", label_gaps, ("refuse", "close"))
        if target.suffix == ".bin":
            typer.echo(f"{pack_pairs(source, target, root=root)} pairs written to {target}")
            return
        faces = open_faces(
            source,
            source_format,
            label_gaps=label_gaps,  # type: ignore[arg-type]  # checked above
        )
        with progress_bar() as bar:
            task = bar.add_task(f"{target.name}", total=len(faces))
            skipped = pack(
                faces,
                target,
                format,
                on_progress=lambda done, total: bar.update(task, completed=done),
                faulty=faulty,  # type: ignore[arg-type]  # checked above
            )
        left_out = f", {skipped} faulty ones left out" if skipped else ""
        typer.echo(
            f"{len(faces) - skipped} images of {faces.num_classes} identities written to "
            f"{target}{left_out}"
        )
