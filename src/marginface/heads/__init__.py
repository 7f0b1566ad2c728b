"""Margin-softmax heads; every module in this folder is imported, so a new file is a new head."""

import importlib
import pkgutil

from marginface.heads._head import MarginHead
from marginface.heads._registry import (
    create_head,
    head_class,
    head_defaults,
    list_heads,
    register_head,
)

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_") and not _module.ispkg:
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "MarginHead",
    "create_head",
    "head_class",
    "head_defaults",
    "list_heads",
    "register_head",
]
