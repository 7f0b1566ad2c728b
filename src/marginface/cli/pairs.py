"""`marginface pairs`: a pair list of one's own people, to verify on."""

import csv
from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.data.formats import open_faces
from marginface.data.pairs.drawing import fold_pairs
from marginface.utils.errors import InputError
from marginface.utils.files import atomic_write

_COLUMNS = ("first", "second", "same", "identity1", "identity2")


def pairs_command(
    source: Annotated[Path, typer.Argument(help="folder of identities, or a list of images")],
    target: Annotated[Path, typer.Argument(help="new .csv file")],
    genuine: Annotated[int, typer.Option(help="pairs of one person, a multiple of 10")] = 3000,
    impostor: Annotated[int, typer.Option(help="pairs of two people, a multiple of 10")] = 3000,
    seed: Annotated[int, typer.Option(help="decides the pairs")] = 0,
) -> None:
    """Draw pairs in ten folds, with both kinds mixed and people of its own in each."""
    with clear_errors():
        if target.exists():
            raise InputError(f"{target} exists; choose another name, nothing is overwritten")
        faces = open_faces(source)
        files: list[str] | None = getattr(faces, "files", None)
        if files is None:
            raise InputError(
                f"{source} holds its images in other files; write them as files first: "
                f"marginface pack {source} <folder> --format folder"
            )
        pairs, same = fold_pairs(faces.labels, genuine, impostor, seed)
        with atomic_write(target, "w") as file:
            # A line that begins with # is a comment, unless quotes say that it is a name.
            is_like_comment = any(name.lstrip().startswith("#") for name in files)
            writer = csv.writer(
                file,
                lineterminator="\n",
                quoting=csv.QUOTE_ALL if is_like_comment else csv.QUOTE_MINIMAL,
            )
            writer.writerow(_COLUMNS)
            for (first, second), is_same in zip(pairs.tolist(), same.tolist(), strict=True):
                people = [faces.identity(int(faces.labels[i])) for i in (first, second)]
                writer.writerow([files[first], files[second], int(is_same), *people])
        root = source if source.is_dir() else source.parent
        typer.echo(
            f"{len(same)} pairs of {faces.num_classes} identities written to {target}; verify on "
            f"them with data.pairs=[{target}] data.pairs_root={root}, evaluate a network on them "
            f"with benchmark.pairs.files=[{target}] benchmark.pairs.root={root}"
        )
