"""`marginface identify`: who the faces in photographs are."""

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from marginface.cli.errors import clear_errors
from marginface.cli.model_options import FaceOptions, ModelArgument, UseOptions, takes
from marginface.utils.errors import InputError


@takes(using=UseOptions, finding=FaceOptions)
def identify_command(
    model: ModelArgument,
    gallery: Annotated[Path, typer.Argument(help="file that marginface enroll made")],
    photos: Annotated[Path, typer.Argument(help="photograph, folder or list")],
    fpir: Annotated[float, typer.Option(help="share of strangers that may be given a name")] = 0.01,
    threshold: Annotated[float | None, typer.Option(help="a cosine instead")] = None,
    top: Annotated[int, typer.Option(help="candidates that are named")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, an object a face")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV, a line a face")] = False,
    *,
    using: UseOptions,
    finding: FaceOptions,
) -> None:
    """Name the faces in photographs, or say unknown; exit code 1 when nobody was found."""
    with clear_errors():
        from marginface.inference.gallery import Gallery
        from marginface.inference.photographs import photos_of

        if as_json and as_csv:
            raise InputError("--json and --csv exclude each other")
        root, names, _ = photos_of(photos)
        opened = using.load(model, **finding.photos())
        paths = [str(root / name) for name in names]
        with Gallery.open(gallery, opened) as among:
            limit = among.threshold(fpir, threshold)
            print(limit, file=sys.stderr)
            found = _answers(among, paths, limit.cosine, top, "json" * as_json or "csv" * as_csv)
    raise typer.Exit(0 if found else 1)


def _answers(gallery: Any, paths: list[str], limit: float, top: int, form: str) -> int:
    """Print an answer per face; returns how many have a name."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if form == "csv":
        writer.writerow(["path", "face", "name", "cosine", "threshold", "next", "next_cosine"])
    found = faces = 0
    for part in gallery.model.embed_stream(paths, gallery.model.finder(paths)):
        for photo, status in zip(part.photo, part.status, strict=True):
            if status != "ok":
                print(f"{photo}: {status}", file=sys.stderr)
        for answer in gallery.identify_faces(part, limit, top):
            faces += 1
            found += answer.name is not None
            _print(answer, form, writer)
    if not faces:
        raise InputError(f"no face that can be used in {len(paths)} photographs")
    return found


def _print(answer: Any, form: str, writer: Any) -> None:
    after = (answer.candidates[1:] or [("", float("nan"))])[0]
    if form == "json":
        content = {
            "path": answer.photo,
            "face": answer.face,
            "name": answer.name,
            "cosine": answer.cosine,
            "threshold": answer.threshold,
            "candidates": [{"name": name, "cosine": c} for name, c in answer.candidates],
            "points": None if answer.points is None else answer.points.tolist(),
        }
        print(json.dumps(content))
    elif form == "csv":
        cosines = [f"{answer.cosine:.6f}", f"{answer.threshold:.6f}", f"{after[1]:.6f}"]
        next_cosine = cosines[2] if after[0] else ""
        row = (answer.photo, answer.face, answer.name or "", *cosines[:2], after[0], next_cosine)
        writer.writerow(row)
    else:
        number = f" (face {answer.face})" if answer.face else ""
        print(f"{answer.photo}{number}: {answer}")
