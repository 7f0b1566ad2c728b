"""Imports modules that register what they define: ours, and those of users."""

import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Iterable

from marginface.utils.errors import InputError

# Groups of entry points that installed packages may use; each names a module to import.
_PARTS = ("heads", "backbones", "formats", "losses", "benchmarks", "augmentations")
ENTRY_POINTS = tuple(f"marginface.{part}" for part in _PARTS)


def import_modules(package: str, path: Iterable[str]) -> None:
    """Import all modules and packages of a package but those that begin with an underscore.

    Args:
        package: its `__name__`.
        path: its `__path__`.
    """
    for module in pkgutil.iter_modules(path):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package}.{module.name}")


def load_plugins(modules: Iterable[str]) -> None:
    """Import modules of the user, and those that installed packages name as entry points.

    Raises:
        InputError: one that cannot be imported, with the reason.
    """
    found = [
        (point.value, f"{point.name} of {group}")
        for group in ENTRY_POINTS
        for point in importlib.metadata.entry_points(group=group)
    ]
    for name, where in [*((name, f"plugins=[{name}]") for name in modules), *found]:
        module = name.partition(":")[0]
        if module in sys.modules:
            continue
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            missing = error.name or module
            if not module.startswith(missing):
                raise InputError(
                    f"{where}: {module} needs {missing}, which is not installed"
                ) from error
            raise InputError(
                f"{where}: there is no module {module}. Install its package, or start in the "
                f"folder it is in; looked in {', '.join(map(repr, sys.path[:3]))}, ..."
            ) from error
        except Exception as error:  # code of the user
            raise InputError(
                f"{where}: {module} cannot be imported ({type(error).__name__}: {error})"
            ) from error
