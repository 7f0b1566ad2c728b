"""Work with face data, heads and the results of trainings."""

import typer

from marginface.cli import heads
from marginface.cli.align import align_command
from marginface.cli.compare import compare_command
from marginface.cli.export_head import export_head_command
from marginface.cli.inspect_data import inspect_command
from marginface.cli.pack import pack_command
from marginface.cli.pairs import pairs_command

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.add_typer(heads.app, name="heads")
app.command("pack")(pack_command)
app.command("pairs")(pairs_command)
app.command("align")(align_command)
app.command("inspect-data")(inspect_command)
app.command("export-head")(export_head_command)
app.command("compare")(compare_command)


@app.callback()
def _marginface() -> None:
    """Train with `python train.py --help`; these commands handle data, heads and results."""
