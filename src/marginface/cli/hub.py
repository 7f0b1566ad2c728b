"""`marginface push` and `marginface pull`: shared folders to and from a model hub."""

from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors


def push_command(
    folder: Annotated[Path, typer.Argument(help="that marginface export wrote")],
    address: Annotated[str, typer.Argument(help="hf:owner/name")],
    public: Annotated[
        bool, typer.Option("--public", help="a new repository is private else")
    ] = False,
) -> None:
    """Upload a shared folder to the Hugging Face Hub (log in with `hf auth login` first)."""
    with clear_errors():
        from marginface.inference.hub import push

        print(f"uploaded: {push(folder, address, private=not public)}")


def pull_command(
    address: Annotated[str, typer.Argument(help="hf:owner/name@revision")],
    target: Annotated[Path, typer.Argument(help="new folder")],
) -> None:
    """Fetch a shared folder from the Hugging Face Hub."""
    with clear_errors():
        from marginface.inference.hub import pull
        from marginface.inference.shared_folder import open_shared_folder

        folder = pull(address, target)
        about = open_shared_folder(folder)
        print(f"{folder}: {about.name}, digest {about.description.digest[:12]}")
