"""`marginface inspect-data`: what is wrong with a set of faces."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.data.formats import list_formats
from marginface.utils.console import progress_bar
from marginface.utils.errors import InputError, unknown_name
from marginface.utils.files import time_stamp

if TYPE_CHECKING:
    from marginface.inspection import Findings


def inspect_command(
    root: Annotated[Path, typer.Argument(help="faces of any format")],
    format: Annotated[
        str | None,
        typer.Option(help=f"of them, when not found out: {', '.join(list_formats())}"),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="side that all must have; the most common one otherwise")
    ] = None,
    pairs: Annotated[
        list[str] | None, typer.Option(help="test set that must not share images with them")
    ] = None,
    pairs_root: Annotated[
        Path | None, typer.Option(help="folder of the images that pair lists name")
    ] = None,
    alpha: Annotated[
        str, typer.Option(help="transparency: refuse (a fault), drop or white, as in training")
    ] = "refuse",
    checkpoint: Annotated[
        Path | None, typer.Option(help="run folder or .ckpt: finds wrong labels and shared persons")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of the report; logs/inspect/<time> otherwise")
    ] = None,
) -> None:
    """Look at every image; print a line for each faulty one; exit with 1 when there is any.

    Suspicions, printed with the word, do not make it fail: look at them in the report.
    """
    # Networks take seconds to import, and the other commands need none.
    from marginface.inspection import inspect_data
    from marginface.inspection.report import write_inspection

    with clear_errors():
        if alpha not in ("refuse", "drop", "white"):
            raise InputError(unknown_name("--alpha", alpha, ("refuse", "drop", "white")))
        with progress_bar() as bar:
            tasks = {}

            def on_progress(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bar.add_task(stage, total=total)
                bar.update(tasks[stage], completed=done)

            findings = inspect_data(
                root,
                format=format,
                image_size=image_size,
                alpha=alpha,  # type: ignore[arg-type]  # checked above
                pairs=pairs,
                pairs_root=pairs_root,
                checkpoint=checkpoint,
                on_progress=on_progress,
            )
        folder = out or Path("logs/inspect") / time_stamp()
        page = write_inspection(findings, folder)
    _print_findings(findings, page)
    if findings.faults:
        raise typer.Exit(1)


def _print_findings(findings: "Findings", page: Path) -> None:
    for finding in findings.faults:
        typer.echo(finding.line)
    for finding in findings.suspicions:
        typer.echo(f"suspicion: {finding.line}")
    for note in findings.notes:
        typer.echo(f"note: {note}")
    counts = findings.counts
    typer.echo(
        f"{counts['images']} images of {counts['identities']} identities: {len(findings.faults)} "
        f"faults, {len(findings.suspicions)} suspicions; report {page}"
    )
