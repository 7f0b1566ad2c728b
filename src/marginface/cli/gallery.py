"""`marginface gallery`: look into a gallery, remove people, take it elsewhere."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from marginface.cli.errors import clear_errors
from marginface.cli.model_options import FaceOptions, ModelArgument, UseOptions, takes
from marginface.utils.errors import InputError, did_you_mean
from marginface.utils.files import one_writer_of

app = typer.Typer(no_args_is_help=True, help="Look into a gallery, remove people, export it.")
GalleryArgument = Annotated[Path, typer.Argument(help="file that marginface enroll made")]


@app.command("list")
def list_command(gallery: GalleryArgument) -> None:
    """Everybody, with the number of photographs and the day they were enrolled."""
    with clear_errors():
        file = _open(gallery)
        for name, images, added in file.listing():
            print(f"{name}\t{images}\t{datetime.fromtimestamp(added):%Y-%m-%d}")


@app.command("info")
def info_command(gallery: GalleryArgument) -> None:
    """What a gallery holds and which model it belongs to."""
    with clear_errors():
        file = _open(gallery)
        about, people = file.about(), file.listing()
        print(f"{len(people)} people, {sum(images for _, images, _ in people)} images")
        print(
            f"{gallery.stat().st_size:,} bytes, {file.removed()} images of removed people emptied"
        )
        print(f"model sha256:{about['digest']}")
        print(f"mirror image added: {about['flip']}, int8: {about['int8']}")
        print(f"embeddings of {about['embedding_size']} numbers, float16; no pixels")


@app.command("remove")
def remove_command(
    gallery: GalleryArgument, name: Annotated[str, typer.Argument(help="of the person")]
) -> None:
    """Forget a person: nothing of the vectors and the name is left in the file."""
    with clear_errors():
        file = _open(gallery)
        count = file.remove(name)
        if not count:
            known = [person for person, _, _ in file.listing()]
            raise InputError(f"nobody in {gallery} is called {name!r}.{did_you_mean(name, known)}")
        print(f"{name}: {count} images removed")


@app.command("compact")
def compact_command(gallery: GalleryArgument) -> None:
    """Give back the room of people who were removed."""
    with clear_errors():
        before, after = _open(gallery).compact()
        print(f"{before:,} bytes before, {after:,} after")


@app.command("check")
def check_command(
    gallery: GalleryArgument,
) -> None:
    """Thresholds by FPIR, people too alike, images that look like somebody else's; the file."""
    with clear_errors():
        from marginface.inference.gallery_check import check_gallery, check_lines

        check = check_gallery(_open(gallery))
        for line in check_lines(check):
            print(line)
    if check.damage is not None:
        raise typer.Exit(1)


@app.command("export")
def export_command(
    gallery: GalleryArgument,
    out: Annotated[Path, typer.Argument(help="new .parquet file")],
) -> None:
    """Write people and vectors to a .parquet file, for a database that takes more of them."""
    with clear_errors():
        from marginface.inference.gallery_check import export_gallery

        print(f"{export_gallery(_open(gallery), out)} images in {out}")


@app.command("rebuild")
@takes(using=UseOptions, finding=FaceOptions)
def rebuild_command(
    gallery: GalleryArgument,
    model: ModelArgument,
    photos: Annotated[
        Path, typer.Argument(help="folder with a folder per person, or a .csv path,subject")
    ],
    force: Annotated[bool, typer.Option("--force", help="skip the gates")] = False,
    *,
    using: UseOptions,
    finding: FaceOptions,
) -> None:
    """Make a gallery anew for another model, from the photographs of the people in it."""
    with clear_errors():
        from marginface.cli.enroll import enroll_people
        from marginface.inference.gallery import Gallery

        anew = gallery.with_name(f".{gallery.name}.rebuilding")
        with one_writer_of(anew):
            old = _open(gallery)
            listing = old.listing()
            people = _photographs_of({name for name, _, _ in listing}, gallery, photos)
            opened = using.load(model, **finding.photos())
            anew.unlink(missing_ok=True)  # of a process that was killed
            try:
                keep_paths = old.keeps_paths()
                with Gallery.open(anew, opened, create=True, keep_paths=keep_paths) as into:
                    done = enroll_people(into, people, force=force, min_norm=None, called=gallery)
                    lost = sorted(people.keys() - set(into.names))
                if lost:
                    raise InputError(
                        f"{len(lost)} people have no photograph that is good enough, the first is "
                        f"{lost[0]!r}; {gallery} was left as it is. --force skips the gates"
                    )
                old.replace_by(anew, listing)
                print(done)
            finally:
                anew.unlink(missing_ok=True)


def _photographs_of(wanted: set[str], gallery: Path, photos: Path) -> dict[str, list[str]]:
    """Paths of the photographs of people; InputError where somebody has none."""
    from marginface.cli.enroll import people_in

    people = {name: paths for name, paths in people_in(photos, None).items() if name in wanted}
    missing = sorted(wanted - people.keys())
    if missing:
        raise InputError(
            f"{photos} has no photographs of {len(missing)} people of {gallery}, the first is "
            f"{missing[0]!r}; remove them from the gallery, or add their photographs"
        )
    return people


def _open(gallery: Path) -> Any:
    from marginface.inference.gallery_opening import open_gallery_file

    return open_gallery_file(gallery)
