"""Exceptions, and the wording of messages; commands print them without a traceback."""

import difflib
from collections.abc import Collection, Iterable


class InputError(ValueError):
    """Bad configuration or data: the message states what was wrong, what was got, what to do."""


class MissingInputError(FileNotFoundError, InputError):
    """A file or folder that is not there."""

    # OSError would format errno and filename; the message is complete.
    def __str__(self) -> str:
        return str(self.args[0])


class RefusedError(InputError):
    """A person, or all their photographs, that a gallery does not take; others may be fine."""


class NotFiniteError(InputError):
    """Embeddings or scores that are NaN or infinite."""


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the message carries step, lr, norms and label range."""


class ProcessLostError(RuntimeError):
    """Another process of the run is gone."""


class CheckpointWriteError(RuntimeError):
    """A checkpoint could not be written; the one before it is as it was."""


class PreemptedError(Exception):
    """The run was asked to stop, and did so in an orderly way."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def first_line(error: BaseException) -> str:
    """What an exception of a library says, in one line; its name when it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' for the nearest of `known`, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def unknown_name(kind: str, word: str, known: Iterable[str]) -> str:
    """The message for a name that is not in a registry: nearest known one, then all of them."""
    names = sorted(known)
    return f"unknown {kind} {word!r}.{did_you_mean(word, names)} Known: {', '.join(names)}"


def check_choice(kind: str, word: str, known: Collection[str]) -> None:
    """InputError for a word that is none of `known`."""
    if word not in known:
        raise InputError(unknown_name(kind, word, known))


def raise_problems(problems: list[str]) -> None:
    """One InputError for all of them; nothing for none."""
    problems = list(dict.fromkeys(problems))
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        lines = "\n".join(f"  {problem}" for problem in problems)
        raise InputError(f"{len(problems)} mistakes in the configuration:\n{lines}")
