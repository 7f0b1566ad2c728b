"""Margin-softmax heads: a head is a margin over class centers, with a loss.

One margin a file, each registered under its name. Every module of this folder that does not begin
with an underscore is imported, so a new file is a new head.
"""

import importlib
import pkgutil

from marginface.heads._head import MarginHead
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import (
    create_head,
    create_margin,
    head_defaults,
    head_problems,
    list_heads,
    margin_class,
    register_head,
)

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_") and not _module.ispkg:
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "Margin",
    "MarginGradient",
    "MarginHead",
    "create_head",
    "create_margin",
    "head_defaults",
    "head_problems",
    "list_heads",
    "margin_class",
    "register_head",
]
