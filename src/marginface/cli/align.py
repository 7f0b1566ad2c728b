"""`marginface align`: photographs to aligned faces, one folder per identity."""

from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.data.alignment.detectors import Detector, LandmarkFile, YuNet, from_function
from marginface.data.alignment.photos import align_photos
from marginface.data.formats.list import read_list
from marginface.data.image_files import find_photos
from marginface.utils.console import progress_bar
from marginface.utils.errors import InputError
from marginface.utils.files import time_stamp


def align_command(
    source: Annotated[Path, typer.Argument(help="folder of photographs")],
    target: Annotated[Path, typer.Argument(help="new folder for the aligned faces")],
    landmarks: Annotated[
        Path | None, typer.Option(help="five points a face: csv, CelebA's or insightface's list")
    ] = None,
    order: Annotated[
        str, typer.Option(help="of coordinates in --landmarks: xyxy, xxyy, or auto, which checks")
    ] = "auto",
    yunet: Annotated[Path | None, typer.Option(help="ONNX file of OpenCV's YuNet detector")] = None,
    detector: Annotated[
        str | None, typer.Option(help="your own: package.module:function of RGB pixels")
    ] = None,
    identities: Annotated[
        Path | None,
        typer.Option(help="list of `photograph identity`, for photographs in no folder"),
    ] = None,
    size: Annotated[int, typer.Option(help="pixels; a multiple of 112 or 128")] = 112,
    min_face: Annotated[
        float, typer.Option(help="pixels between the eyes or down to the mouth; smaller: rejected")
    ] = 10.0,
    out: Annotated[
        Path | None, typer.Option(help="folder of the report; logs/align/<time> otherwise")
    ] = None,
) -> None:
    """Warp the face of every photograph onto the standard five-point template."""
    # Not needed by the other commands, and slow to import.
    from marginface.inspection.alignment_report import write_report

    with clear_errors():
        finder = _detector(source, landmarks, order, yunet, detector)
        names = dict(zip(*read_list(identities), strict=True)) if identities else None
        with progress_bar() as bar:
            task = bar.add_task("photographs", total=None)
            result = align_photos(
                source,
                target,
                finder,
                size=size,
                min_face=min_face,
                identities=names,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        folder = out or Path("logs/align") / time_stamp()
        write_report(result, folder, source, target)
        for reason, count in result.reasons().most_common():
            typer.echo(f"{count} rejected: {reason}")
        typer.echo(
            f"{len(result.aligned)} faces written to {target}, {len(result.rejected)} photographs "
            f"rejected; report {folder / 'align.html'}"
        )


def _detector(
    source: Path, landmarks: Path | None, order: str, yunet: Path | None, detector: str | None
) -> Detector:
    if sum(choice is not None for choice in (landmarks, yunet, detector)) != 1:
        raise InputError("give one of --landmarks, --yunet and --detector")
    if landmarks is not None:
        return LandmarkFile(landmarks, find_photos(source), order)
    if yunet is not None:
        return YuNet(yunet)
    assert detector is not None
    return from_function(detector)
