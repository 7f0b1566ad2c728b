"""`marginface train` and `marginface evaluate`: what train.py and evaluate.py of a checkout do."""

import sys
from pathlib import Path

import typer

_SCRIPTS = Path(__file__).parent / "scripts"
# All arguments are Hydra's, --help among them.
_EVERYTHING = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def train_command(context: typer.Context) -> None:
    """Train a network; overrides as for train.py."""
    _become("train", context.args)
    from marginface.cli.train import main

    main()


def evaluate_command(context: typer.Context) -> None:
    """Evaluate a network; overrides as for evaluate.py."""
    _become("evaluate", context.args)
    from marginface.cli.evaluate import main

    main()


train_command.context_settings = _EVERYTHING  # type: ignore[attr-defined]
evaluate_command.context_settings = _EVERYTHING  # type: ignore[attr-defined]


def _become(script: str, arguments: list[str]) -> None:
    """A command line that further processes and jobs of sweeps can run again."""
    sys.argv = [str(_SCRIPTS / f"{script}.py"), *arguments]
