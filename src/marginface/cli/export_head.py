"""`marginface export-head`: the class centers of a training run as a safetensors file."""

from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors


def export_head_command(
    run: Annotated[Path, typer.Argument(help="run folder or .ckpt file")],
    target: Annotated[Path, typer.Argument(help="new .safetensors file")],
    normalize: Annotated[bool, typer.Option(help="make every center a unit vector")] = False,
) -> None:
    """Write the class centers of a training run to a file, in the order of the labels."""
    with clear_errors():
        # Not needed by the other commands, and slow to import.
        from marginface.inference.export_head import export_head

        shape = export_head(run, target, normalize=normalize)
        print(f"{shape[0]} centers of {shape[1]} numbers in {target}")
