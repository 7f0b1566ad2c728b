"""Errors of commands: one message, an exit code, no traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from marginface.utils.errors import (
    CheckpointWriteError,
    InputError,
    NonFiniteLossError,
    PreemptedError,
    ProcessLostError,
)


@contextmanager
def clear_errors() -> Iterator[None]:
    """One message on stderr, and exit code 2 for user mistakes, 1 for a run that broke down."""
    try:
        yield
    except _user_errors() as error:
        print(f"error: {_without_worker_traceback(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except (NonFiniteLossError, CheckpointWriteError, ProcessLostError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except PreemptedError as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(stop.exit_code) from None


def _without_worker_traceback(message: str) -> str:
    # A DataLoader worker's exception arrives as its whole traceback; the last line is ours.
    if not message.startswith("Caught "):
        return message
    return message.rstrip().splitlines()[-1].split("Error: ", 1)[-1]


def _user_errors() -> tuple[type[Exception], ...]:
    # Lightning's own complaint, where Lightning runs; importing it takes seconds.
    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    return (InputError, lightning.MisconfigurationException) if lightning else (InputError,)
