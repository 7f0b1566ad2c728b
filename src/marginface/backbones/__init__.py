"""Embedding networks; importing this package registers ours with timm."""

from marginface.backbones import (
    iresnet,  # noqa: F401  (registers with timm)
    miniresnet,  # noqa: F401  (registers with timm)
    mobilefacenet,  # noqa: F401  (registers with timm)
)
from marginface.backbones.factory import checkpoint_activations, create_backbone
from marginface.backbones.weights import load_backbone_weights

__all__ = ["checkpoint_activations", "create_backbone", "load_backbone_weights"]
