"""Nested dictionaries as flat ones."""

from typing import Any


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{a: {b: 1}} to {"a.b": 1}."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in flatten(branch, f"{prefix}.{name}" if prefix else str(name)).items()
    }
