"""Names to head classes: `register_head`, `list_heads`, `create_head`."""

import fnmatch
import inspect
from collections.abc import Callable
from typing import Any

from marginface.heads._head import MarginHead
from marginface.utils.arguments import _call_problems, check_parameters
from marginface.utils.errors import InputError, unknown_name

_HEADS: dict[str, type[MarginHead]] = {}


def register_head(name: str) -> Callable[[type[MarginHead]], type[MarginHead]]:
    """Class decorator that makes a head known under `name`; a name can be taken only once."""

    def register(head_class: type[MarginHead]) -> type[MarginHead]:
        if name in _HEADS:
            raise ValueError(f"head {name!r} is already registered by {_HEADS[name].__module__}")
        head_class.name = name
        _HEADS[name] = head_class
        return head_class

    return register


def list_heads(pattern: str = "*") -> list[str]:
    """Registered names that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(_HEADS, pattern))


def head_class(name: str) -> type[MarginHead]:
    """The class registered under `name`; InputError names the nearest known one."""
    if name not in _HEADS:
        raise InputError(unknown_name("head", name, _HEADS))
    return _HEADS[name]


def head_defaults(name: str) -> dict[str, Any]:
    """The parameters of a head beyond its sizes, with their defaults."""
    parameters = inspect.signature(head_class(name)).parameters
    return {k: p.default for k, p in parameters.items() if p.default is not inspect.Parameter.empty}


def create_head(
    name: str, *, embedding_size: int, num_classes: int, **parameters: Any
) -> MarginHead:
    """Build the head `name`; an unknown or mistyped parameter is an InputError."""
    known = head_defaults(name)
    check_parameters(f"head {name!r}", head_class(name), parameters, known)
    return head_class(name)(embedding_size, num_classes, **parameters)


def _head_problems(node: dict[str, Any]) -> list[str]:
    name = node.get("name")
    if name not in list_heads():
        return [unknown_name("head", str(name), list_heads())]
    parameters = {key: value for key, value in node.items() if key != "name"}
    problems = _call_problems("head", head_class(name), parameters)
    if problems:
        return problems
    try:
        # The smallest head of its kind: ranges are checked where they are defined.
        create_head(name, embedding_size=1, num_classes=2, **parameters)
    except InputError as error:
        problems.append(str(error))
    return problems
