"""Imports every module of a folder, so that a new file registers itself."""

import importlib
import pkgutil
from collections.abc import Iterable


def import_modules(package: str, path: Iterable[str]) -> None:
    """Import all modules and packages of a package but those that begin with an underscore.

    Args:
        package: its `__name__`.
        path: its `__path__`.
    """
    for module in pkgutil.iter_modules(path):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")
