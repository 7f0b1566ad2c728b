"""Parameters given by name: unknown, mistyped and out-of-range ones as clear errors."""

import inspect
import typing
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from marginface.utils.errors import InputError, did_you_mean

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
AtLeastOne = Annotated[float, Field(ge=1)]
WholeNumber = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Ranks = Annotated[Sequence[WholeNumber], Field(min_length=1)]  # of identification
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]  # of a whole, not nothing


_PROVIDED = {
    "head": {"embedding_size", "num_classes"},
    "optimizer": {"params"},
    "scheduler": {"total_steps", "steps_per_epoch"},
}


def check_parameters(
    what: str, target: type[Any], given: dict[str, Any], known: Iterable[str]
) -> None:
    """InputError for the first of `given` that `target` does not take, or not with this value.

    Args:
        what: the thing with parameters, for the message: "head 'arcface'".
        target: the class whose constructor's annotations hold.
        given: parameters by name.
        known: names that may be given.
    """
    known = list(known)
    accepts = f"It accepts: {', '.join(known) or 'none'}"
    kinds = get_type_hints(target.__init__, include_extras=True)
    for key, value in given.items():
        if key not in known:
            raise InputError(
                f"{what} has no parameter {key!r}.{did_you_mean(key, known)} {accepts}"
            )
        try:
            TypeAdapter(kinds.get(key, Any)).validate_python(value, strict=True)
        except ValidationError as error:
            reason = error.errors()[-1]["msg"].lower()
            raise InputError(f"{what}: {key}={value!r}: {reason}. {accepts}") from None


def _call_problems(
    where: str, target: Callable[..., Any], arguments: dict[str, Any], also: Collection[str] = ()
) -> list[str]:
    """Unknown, missing and mistyped arguments of a call."""
    parameters, hints = _parameters(target)
    kinds = {p.kind for p in parameters.values()}
    known = {
        name for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    } - _PROVIDED.get(where, set())
    problems = []
    for name, value in arguments.items():
        if name in known:
            if name in hints:
                problems += _type_problems(f"{where}.{name}", value, hints[name])
        elif inspect.Parameter.VAR_KEYWORD not in kinds:
            problems.append(_unknown_key(where, name, known.union(also)))
    for name in sorted(known - arguments.keys()):
        if parameters[name].default is inspect.Parameter.empty:
            problems.append(f"{where}.{name} is missing; add {where}.{name}=<value>")
    return problems


def _parameters(
    target: Callable[..., Any],
) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """Parameters of a call and their types; keywords that a TypedDict lists are written out."""
    parameters = dict(inspect.signature(target).parameters)
    parameters.pop("self", None)
    hints = _type_hints(target)
    for name, parameter in list(parameters.items()):
        if typing.get_origin(hints.get(name)) is typing.Unpack:
            (options,) = typing.get_args(hints.pop(name))
            hints |= typing.get_type_hints(options, include_extras=True)
            del parameters[name]
            for key in options.__annotations__:
                parameters[key] = inspect.Parameter(key, parameter.KEYWORD_ONLY, default=None)
    return parameters, hints


def mapping_problems(
    where: str, values: dict[str, Any], types: dict[str, Any], required: set[str]
) -> list[str]:
    """Unknown, missing and mistyped keys of a mapping."""
    dot = f"{where}." if where else ""
    problems = [_unknown_key(where, key, types) for key in values if key not in types]
    problems += [f"{dot}{key} is missing" for key in sorted(required - values.keys())]
    for key, value in values.items():
        if key in types:
            problems += _type_problems(f"{dot}{key}", value, types[key])
    return problems


def _unknown_key(where: str, key: str, known: typing.Iterable[str]) -> str:
    names = sorted(known)
    dot = f"{where}." if where else ""
    return (
        f"unknown key {dot}{key}.{did_you_mean(key, names)} "
        f"{where or 'the configuration'} has: {', '.join(names)}"
    )


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # annotations that only a type checker can resolve
        return {}


def _type_problems(where: str, value: Any, hint: Any) -> list[str]:
    if isinstance(value, dict) and "_target_" in value:
        return []  # stands for an object; it is checked by itself
    if hint in (list[str] | None, list[str]) and isinstance(value, str):
        return [f"{where}: expected a list, got {value!r}; write {where}=[{value}]"]
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:
        try:
            adapter = TypeAdapter(hint)  # models bring their own config
        except Exception:  # a type pydantic cannot describe says nothing about YAML values
            return []
    try:
        result = adapter.validate_python(value)
    except ValidationError as error:
        reasons = sorted({e["msg"] for e in error.errors() if "instance of" not in e["msg"]})
        return [f"{where}: got {value!r}. {'; '.join(reasons)}"]
    if not _same_kind(value, result):
        return [
            f"{where}: got {value!r}, a {type(value).__name__}, where a "
            f"{type(result).__name__} is expected"
        ]
    return []


def _same_kind(value: Any, result: Any) -> bool:
    """Whether pydantic kept the kind of a scalar; the value itself is used, not its conversion."""
    if isinstance(value, str):
        return isinstance(result, str | Path)
    if isinstance(value, bool) or isinstance(result, bool):
        return type(value) is type(result)
    if isinstance(value, float):
        return isinstance(result, float)
    return True
