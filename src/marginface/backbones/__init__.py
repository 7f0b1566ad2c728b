"""Embedding networks; importing this package registers ours with timm.

Every module of this folder that does not begin with an underscore is imported, so a new file with
timm's `@register_model` is a new backbone.
"""

import importlib
import pkgutil

from marginface.backbones.factory import (
    backbone_problems,
    checkpoint_activations,
    create_backbone,
)
from marginface.backbones.weights import load_backbone_weights

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "backbone_problems",
    "checkpoint_activations",
    "create_backbone",
    "load_backbone_weights",
]
