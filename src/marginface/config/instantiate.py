"""Objects from configuration nodes; `build` is the only caller of hydra.utils.instantiate."""

from collections.abc import Collection
from typing import Any

import hydra
from hydra.errors import InstantiationException

from marginface.utils.arguments import call_problems
from marginface.utils.errors import InputError
from marginface.utils.renamed import new_target


def build(node: dict[str, Any], **provided: Any) -> Any:
    """The object a `_target_` node describes; with `_partial_` a function that builds it."""
    try:
        return hydra.utils.instantiate(node, **provided, _convert_="all")
    except InstantiationException as error:
        # Hydra wraps what a constructor raised, once for each level of nesting.
        cause: BaseException | None = error
        while isinstance(cause, InstantiationException):
            cause = cause.__cause__
        if isinstance(cause, ModuleNotFoundError):
            raise InputError(f"{node['_target_']} needs a package: {cause}") from error
        raise cause or error from None


def target_problems(where: str, node: Any, provided: Collection[str] = ()) -> list[str]:
    """What is wrong with a node that stands for an object.

    Args:
        where: its dotted key.
        provided: arguments that the code passes; the node must not have them.
    """
    if not isinstance(node, dict) or "_target_" not in node:
        return [f"{where} must be a mapping with a _target_, got {node!r}"]
    try:
        target = hydra.utils.get_object(node["_target_"])
    except Exception as error:  # an import can fail in any way
        renamed = new_target(node["_target_"])
        if renamed is not None and _can_be_imported(renamed):
            return [f"{where}._target_: {node['_target_']} was renamed to {renamed}"]
        return [f"{where}._target_: cannot import {node['_target_']!r} ({error})"]
    arguments = {key: value for key, value in node.items() if not _is_hydra_key(key)}
    problems = call_problems(where, target, arguments, provided=provided)
    for key, value in arguments.items():
        if isinstance(value, dict) and "_target_" in value:
            problems += target_problems(f"{where}.{key}", value)
    return problems


def _is_hydra_key(key: str) -> bool:
    return key.startswith("_") and key.endswith("_")


def _can_be_imported(target: str) -> bool:
    try:
        hydra.utils.get_object(target)
    except Exception:  # an import can fail in any way
        return False
    return True
