"""Checks arguments given by name: unknown, missing, mistyped and out-of-range ones."""

import inspect
import re
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from marginface.utils.errors import InputError, did_you_mean
from marginface.utils.renamed import new_key

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
AtLeastOne = Annotated[float, Field(ge=1)]
WholeNumber = Annotated[int, Field(ge=1)]
NotNegativeInt = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Ranks = Annotated[Sequence[WholeNumber], Field(min_length=1)]  # of identification
Seed = NotNegativeInt
Share = Annotated[float, Field(gt=0, le=1)]  # of a whole, not nothing


def check_arguments(
    what: str, target: Callable[..., Any], given: dict[str, Any], known: Iterable[str]
) -> None:
    """InputError for the first of `given` that `target` does not take, or not with this value.

    Args:
        what: the thing with parameters, for the message: "head 'arcface'".
        target: the function or class whose annotations hold.
        given: arguments by name.
        known: names that may be given.
    """
    known = list(known)
    accepts = f"It accepts: {', '.join(known) or 'none'}"
    _, types = _parameters(target)
    for name, value in given.items():
        if name not in known:
            raise InputError(
                f"{what} has no parameter {name!r}.{did_you_mean(name, known)} {accepts}"
            )
        reason = _reason_against(value, types.get(name, Any))
        if reason is not None:
            raise InputError(f"{what}: {name}={value!r}: {reason.lower()}. {accepts}")


def call_problems(
    where: str,
    target: Callable[..., Any],
    arguments: dict[str, Any],
    *,
    provided: Collection[str] = (),
    also: Iterable[str] = (),
) -> list[str]:
    """Unknown, missing and mistyped arguments of a call that a configuration describes.

    Args:
        where: the dotted key of the arguments.
        target: what would be called.
        arguments: what the configuration gives.
        provided: parameters that the code passes; a configuration must not.
        also: further keys that may stand there, to be named where one is unknown.
    """
    parameters, types = _parameters(target)
    kinds = {p.kind for p in parameters.values()}
    known = {
        name for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    } - set(provided)
    problems = []
    for name, value in arguments.items():
        if name in known:
            problems += _value_problems(f"{where}.{name}", value, types.get(name, Any))
        elif inspect.Parameter.VAR_KEYWORD not in kinds:
            problems.append(_unknown_key(where, name, known.union(also)))
    for name in sorted(known - arguments.keys()):
        if parameters[name].default is inspect.Parameter.empty:
            problems.append(f"{where}.{name} is missing; add {where}.{name}=<value>")
    return problems


def mapping_problems(
    where: str, values: dict[str, Any], types: dict[str, Any], required: set[str]
) -> list[str]:
    """Unknown, missing and mistyped keys of a mapping."""
    dot = f"{where}." if where else ""
    problems = [_unknown_key(where, key, types) for key in values if key not in types]
    problems += [f"{dot}{key} is missing" for key in sorted(required - values.keys())]
    for key, value in values.items():
        if key in types:
            problems += _value_problems(f"{dot}{key}", value, types[key])
    return problems


def argument_named_in(
    message: str, target: type, given: Mapping[str, Any] | None = None
) -> str | None:
    """The argument of a class that a message of its authors is about.

    Args:
        given: arguments, of which a message may have the value only.
    """
    names = inspect.signature(target).parameters
    # Quoted ones, then assigned ones, then words that cannot be of the sentence.
    for pattern in (r"`([a-z_]+)`", r"([a-z_]+)=", r"\b([a-z]+_[a-z_]+)\b"):
        for word in re.findall(pattern, message):
            if word in names:
                return str(word)
    words = set(re.findall(r"[\w-]{3,}", message))
    return next((k for k, v in (given or {}).items() if k in names and v in words), None)


def _parameters(
    target: Callable[..., Any],
) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """Parameters of a call and their types; keywords that a TypedDict lists are written out."""
    parameters = dict(inspect.signature(target).parameters)
    parameters.pop("self", None)
    types = _annotations(target)
    for name, parameter in list(parameters.items()):
        if typing.get_origin(types.get(name)) is typing.Unpack:
            (options,) = typing.get_args(types.pop(name))
            types |= typing.get_type_hints(options, include_extras=True)
            del parameters[name]
            for key in options.__annotations__:
                parameters[key] = inspect.Parameter(key, parameter.KEYWORD_ONLY, default=None)
    return parameters, types


def _annotations(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # annotations that only a type checker can resolve
        return {}


def _unknown_key(where: str, key: str, known: Iterable[str]) -> str:
    names = sorted(known)
    dot = f"{where}." if where else ""
    renamed = new_key(dot + key)
    if renamed is not None:
        return f"unknown key {dot}{key}: it was renamed to {renamed}"
    return (
        f"unknown key {dot}{key}.{did_you_mean(key, names)} "
        f"{where or 'the configuration'} has: {', '.join(names)}"
    )


def _value_problems(where: str, value: Any, annotation: Any) -> list[str]:
    if isinstance(value, dict) and "_target_" in value:
        return []  # stands for an object; it is checked by itself
    if annotation in (list[str] | None, list[str]) and isinstance(value, str):
        return [f"{where}: expected a list, got {value!r}; write {where}=[{value}]"]
    reason = _reason_against(value, annotation)
    return [] if reason is None else [f"{where}: got {value!r}. {reason}"]


def _reason_against(value: Any, annotation: Any) -> str | None:
    """Why a value does not have the annotated type and range; None when it does."""
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except Exception:
        try:
            adapter = TypeAdapter(annotation)  # models bring their own config
        except Exception:  # a type pydantic cannot describe does not restrict YAML values
            return None
    try:
        result = adapter.validate_python(value)
    except ValidationError as error:
        reasons = sorted({e["msg"] for e in error.errors() if "instance of" not in e["msg"]})
        return "; ".join(reasons)
    if not _same_kind(value, result):
        return f"A {type(value).__name__} where a {type(result).__name__} is expected"
    return None


def _same_kind(value: Any, result: Any) -> bool:
    """Whether pydantic kept the kind of a scalar; the value itself is used, not its conversion."""
    if isinstance(value, str):
        return isinstance(result, str | Path)
    if isinstance(value, bool) or isinstance(result, bool):
        return type(value) is type(result)
    if isinstance(value, float):
        return isinstance(result, float)
    return True
