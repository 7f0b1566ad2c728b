"""Commands of the console script in this process: starting Python and torch takes seconds."""

from click.testing import Result
from typer.testing import CliRunner

from marginface.cli.main import app


def marginface(*arguments: str) -> Result:
    """What `marginface ARGUMENTS` prints (`stdout`, `stderr`) and returns (`exit_code`)."""
    return CliRunner().invoke(app, list(arguments))
