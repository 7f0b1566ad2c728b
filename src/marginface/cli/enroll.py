"""`marginface enroll`: people into a gallery."""

from pathlib import Path
from typing import Annotated, Any

import typer

from marginface.cli.errors import clear_errors
from marginface.cli.model_options import FaceOptions, ModelArgument, UseOptions, takes
from marginface.utils.errors import InputError, RefusedError


@takes(using=UseOptions, finding=FaceOptions)
def enroll_command(
    model: ModelArgument,
    gallery: Annotated[Path, typer.Argument(help="file; it is made when it is not there")],
    photos: Annotated[
        Path, typer.Argument(help="folder with a folder per person, or a .csv path,subject")
    ],
    name: Annotated[
        str | None, typer.Option(help="who all the photographs show, where no folder says so")
    ] = None,
    min_norm: Annotated[
        float | None, typer.Option(help="of the embedding; else the evaluation's 1st percentile")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="skip every gate but unreadable photographs")
    ] = False,
    keep_paths: Annotated[
        bool, typer.Option("--keep-paths", help="store where photographs are")
    ] = False,
    *,
    using: UseOptions,
    finding: FaceOptions,
) -> None:
    """Add people to a gallery; photographs that are not good enough are named and left out."""
    with clear_errors():
        from marginface.inference.gallery import Gallery

        people = people_in(photos, name)
        opened = using.load(model, **finding.photos())
        with Gallery.open(gallery, opened, create=True, keep_paths=keep_paths) as into:
            print(enroll_people(into, people, force=force, min_norm=min_norm))


def people_in(photos: Path, name: str | None) -> dict[str, list[str]]:
    """Paths of photographs by person.

    Raises:
        InputError: photographs of nobody.
    """
    from marginface.inference.photographs import photos_of

    root, names, subjects = photos_of(photos)
    if name is not None:
        subjects = [name] * len(names)
    stray = next((photo for photo in names if "/" not in photo), None)
    if subjects is None and photos.is_dir() and any("/" in photo for photo in names):
        raise InputError(
            f"{photos / str(stray)} is in no person's folder; move it into one, or name everybody "
            "in a .csv with path,subject"
        )
    if subjects is None:
        raise InputError(
            f"{photos} does not say who its photographs show: a folder per person, a .csv with "
            "path,subject, or --name NAME for all of them"
        )
    people: dict[str, list[str]] = {}
    for photo, subject in zip(names, subjects, strict=True):
        people.setdefault(subject, []).append(str(root / photo))
    return people


def enroll_people(
    gallery: Any,
    people: dict[str, list[str]],
    *,
    force: bool,
    min_norm: float | None,
    called: Path | None = None,
) -> str:
    """Enroll one after the other, and say what was left out; returns a line that says how many.

    Args:
        called: the file's name, where it will have another one.

    Raises:
        InputError: nobody could be enrolled.
    """
    from marginface.utils.console import progress_bar

    images, done, refused = 0, 0, 0
    everything = [photo for photos in people.values() for photo in photos]
    with progress_bar() as bar, gallery.model.landmarks_of(everything):
        task = bar.add_task("people", total=len(people))
        for person, photos in people.items():
            try:
                result = gallery.enroll(person, photos, force, refused="skip", min_norm=min_norm)
            except RefusedError as error:
                bar.console.print(
                    f"refused: {error}", markup=False, highlight=False, soft_wrap=True
                )
                refused += len(photos)
            except InputError as error:  # the next person would fail as well
                raise InputError(f"{error}; {done} people were enrolled before that") from error
            else:
                images, done = images + result.added, done + 1
                for problem in result.refused:
                    line = f"refused: {problem.photo} of {person!r}: {problem.reason}"
                    bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
                refused += len(result.refused)
            bar.advance(task)
    if not done:
        raise InputError(f"nobody was enrolled: all {refused} photographs were refused")
    return (
        f"{images} photographs of {done} people enrolled, {refused} refused; "
        f"{len(gallery)} people in {called or gallery.file.path}"
    )
