"""Overrides as the shell passed them, quoted where Hydra's grammar needs it.

Paths have characters that mean something to Hydra: `=`, commas, blanks, parentheses, accents.
"""

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from marginface.utils.console import rank_zero_warn
from marginface.utils.errors import InputError


def with_quotes(arguments: list[str]) -> list[str]:
    """A command line whose overrides Hydra can read; what was quoted is printed.

    Values that Hydra cannot read are quoted, or the members of a list. So are paths with a comma
    that would be choices of a sweep where no sweep was asked for.

    Raises:
        InputError: several values for a key without -m.
    """
    _check_form(arguments)
    options = get_args_parser().parse_args(arguments)
    quoted = {given: _readable(given, options.multirun) for given in options.overrides}
    for given, now in quoted.items():
        if now != given:
            rank_zero_warn(f"the override {given} is read as {now}; in a shell write '{now}'")
    return [_added(quoted.get(argument, argument)) for argument in arguments]


# Keys that no file of the configuration has, because they are arguments of a run and not of a part.
OPTIONAL_KEYS = (
    "head.weights", "head.classes", "backbone.family", "backbone.mean", "backbone.std",
    "finetune.compatible_with", "finetune.compatible_weight", "finetune.compatible_centers",
)  # fmt: skip


def _added(argument: str) -> str:
    """An optional key is added; Hydra takes others for a misspelled one."""
    return f"++{argument}" if argument.partition("=")[0] in OPTIONAL_KEYS else argument


def _check_form(arguments: list[str]) -> None:
    """InputError for what is no override, such as options of other programs."""
    options = get_args_parser()._option_string_actions
    for place, argument in enumerate(arguments):
        name = argument.partition("=")[0]
        if name.startswith("--") and name not in options:
            following = arguments[place + 1 : place + 2]
            value = argument.partition("=")[2] or (following[0] if following else "<value>")
            raise InputError(
                f"{argument} is no option; settings have no dashes: {name.strip('-')}={value}"
            )
        if argument == "=" or (argument.startswith("=") and place):
            before = arguments[place - 1] if place else "<key>"
            after = argument[1:] or "".join(arguments[place + 1 : place + 2]) or "<value>"
            raise InputError(f"write {before}={after}, without blanks around =")


def _check_closed(argument: str, value: str) -> None:
    """InputError for a list or a quote that does not end."""
    if value.startswith("[") != value.endswith("]"):
        raise InputError(f"{argument}: a bracket of the list is missing; write key=[a,b]")
    for quote in "'\"":
        in_list = value.startswith("[") and value.count(quote) % 2
        if in_list or (value.startswith(quote) and value.count(quote) == 1):
            raise InputError(f"{argument}: the quote {quote} is not closed")


def parsed(argument: str) -> Override | None:
    """An override; None when Hydra cannot read it."""
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def _readable(argument: str, is_sweep: bool) -> str:
    key, assigns, value = argument.partition("=")
    override = parsed(argument)
    if not assigns:
        if override is None:
            raise InputError(f"{argument} has no value; write {argument}=<value>")
        return argument
    if override is None:
        _check_closed(argument, value)
        with_members = f"{key}={_with_quoted_members(value)}"
        for candidate in (with_members, f"{key}={_quoted(value)}"):
            if parsed(candidate) is not None:
                return candidate
        return argument  # whoever reads it names the mistake
    if is_sweep or not override.is_sweep_override() or key.startswith("hydra."):
        return argument
    if "/" in value or "\\" in value:
        return f"{key}={_quoted(value)}"
    raise InputError(
        f"{argument} has several values: -m runs each of them, {key}=[{value}] is a list, and "
        f"'{key}={_quoted(value)}' is one value"
    )


def _with_quoted_members(value: str) -> str:
    """A list of words, each quoted where it has to be."""
    if not (value.startswith("[") and value.endswith("]")) or any(
        c in value[1:-1] for c in "[]'\""
    ):
        return value
    words = [word.strip() for word in value[1:-1].split(",")]
    return f"[{','.join(w if parsed(f'key={w}') else _quoted(w) for w in words)}]"


def _quoted(value: str) -> str:
    """In double quotes; those inside and backslashes before them are escaped."""
    end = "\\" if value.endswith("\\") else ""
    return '"' + value.replace('\\"', '\\\\"').replace('"', '\\"') + end + '"'
