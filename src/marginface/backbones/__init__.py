"""Embedding networks; importing this package registers ours with timm.

Every module of this folder that does not begin with an underscore is imported, so a new file with
timm's `@register_model` is a new backbone.
"""

from marginface.backbones.factory import (
    backbone_problems,
    checkpoint_activations,
    create_backbone,
)
from marginface.backbones.pretrained import load_pretrained
from marginface.backbones.weights import load_backbone_weights
from marginface.utils.plugins import import_modules

import_modules(__name__, __path__)

__all__ = [
    "backbone_problems",
    "checkpoint_activations",
    "create_backbone",
    "load_backbone_weights",
    "load_pretrained",
]
