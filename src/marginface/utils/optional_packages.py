"""Imports of optional packages, with the extra to install in the error."""

import importlib
from typing import Any

from marginface.utils.errors import InputError


def require_package(package: str, *, extra: str) -> Any:
    """The imported package; InputError names the extra that brings it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"this needs the package {package.split('.')[0]}, which is not installed; "
            f"pip install 'marginface[{extra}]'"
        ) from error
