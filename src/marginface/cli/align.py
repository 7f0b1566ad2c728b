"""`marginface align`: photographs to aligned faces, one folder per identity."""

import os
from pathlib import Path
from typing import Annotated, get_args

import typer

from marginface.cli.errors import clear_errors
from marginface.data.alignment.detectors import (
    YUNET_VARIABLE,
    Detector,
    LandmarkFile,
    YuNet,
    from_function,
)
from marginface.data.alignment.photos import align_photos
from marginface.data.alignment.point_reading import PointFrame
from marginface.data.image_list import read_image_list
from marginface.utils.console import progress_bar
from marginface.utils.errors import InputError, check_choice
from marginface.utils.files import time_stamp
from marginface.utils.text_table import readable


def align_command(
    source: Annotated[Path, typer.Argument(help="folder of photographs")],
    target: Annotated[Path, typer.Argument(help="new folder for the aligned faces")],
    landmarks: Annotated[
        Path | None, typer.Option(help="five points a face: csv, CelebA's or insightface's list")
    ] = None,
    order: Annotated[
        str, typer.Option(help="of coordinates in --landmarks: xyxy, xxyy, or auto, which checks")
    ] = "auto",
    exif: Annotated[
        str,
        typer.Option(help="pixels that points are in: orientation apply'd, ignore'd, or auto"),
    ] = "auto",
    yunet: Annotated[Path | None, typer.Option(help="ONNX file of OpenCV's YuNet detector")] = None,
    tiles: Annotated[
        int, typer.Option(help="for --yunet and crowds: parts along each side to look at as well")
    ] = 1,
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
    missing: Annotated[
        str, typer.Option(help="photographs without a face: skip, or center (cut it out)")
    ] = "skip",
    faulty: Annotated[
        str, typer.Option(help="photographs that cannot be read: skip (reject), or stop")
    ] = "skip",
    out: Annotated[
        Path | None, typer.Option(help="folder of the report; logs/align/<time> otherwise")
    ] = None,
) -> None:
    """Warp the face of every photograph onto the standard five-point template."""
    # Not needed by the other commands, and slow to import.
    from marginface.inspection.alignment_report import write_report

    with clear_errors():
        check_choice("--missing", missing, ("skip", "center"))
        check_choice("--faulty", faulty, ("skip", "stop"))
        check_choice("--exif", exif, get_args(PointFrame))
        if landmarks is None and detector is None and yunet is None:
            yunet = Path(os.environ[YUNET_VARIABLE]) if YUNET_VARIABLE in os.environ else None
        if sum(choice is not None for choice in (landmarks, yunet, detector)) != 1:
            raise InputError(
                "give one of --landmarks, --yunet and --detector; without any, MARGINFACE_YUNET "
                "names YuNet's file"
            )
        if landmarks is not None:
            finder: Detector = LandmarkFile(landmarks, source, order=order, frame=exif)
        elif yunet is not None:
            finder = YuNet(yunet, tiles=tiles)
        else:
            assert detector is not None
            finder = from_function(detector)
        names = None
        if identities is not None:
            files, people, _ = read_image_list(identities)
            names = dict(zip(files, map(readable, people), strict=True))
        with progress_bar() as bar:
            task = bar.add_task("photographs", total=None)
            result = align_photos(
                source,
                target,
                finder,
                size=size,
                min_face=min_face,
                identities=names,
                exif="ignore" if exif == "ignore" else "apply",
                missing=missing,  # type: ignore[arg-type]  # checked above
                faulty=faulty,  # type: ignore[arg-type]  # checked above
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        folder = out or Path("logs/align") / time_stamp()
        write_report(result, folder, source, target)
        for reason, photos in result.by_reason().items():
            more = ", ..." if len(photos) > 3 else ""
            typer.echo(f"{len(photos)} rejected: {reason}: {', '.join(photos[:3])}{more}")
        if result.centered:
            typer.echo(f"{len(result.centered)} without a face: the center of the photograph")
        typer.echo(
            f"{len(result.aligned)} faces written to {target}, {len(result.rejected)} photographs "
            f"rejected; report {folder / 'align.html'}"
        )
