"""Margin-softmax heads: a head is a margin over class centers, with a loss.

One margin a file, each registered under its name. Every module of this folder that does not begin
with an underscore is imported, so a new file is a new head.
"""

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
from marginface.utils.plugins import import_modules

import_modules(__name__, __path__)

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
