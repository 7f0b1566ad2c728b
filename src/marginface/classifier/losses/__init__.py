"""Losses over logits: cross-entropy, binary cross-entropy, circle, alpha-divergence.

A head makes logits, a loss turns them into a number; any curve meets any loss it makes sense with.
"""

import inspect
import math
from typing import Any

from marginface.classifier.losses.alpha_divergence import Alpha, AlphaDivergence
from marginface.classifier.losses.base import ClassificationLoss
from marginface.classifier.losses.binary import BinaryCrossEntropy, balanced_bias
from marginface.classifier.losses.cross_entropy import Circle, CrossEntropy, circle_weight
from marginface.utils.arguments import check_arguments
from marginface.utils.errors import InputError, unknown_name

__all__ = [
    "Alpha",
    "AlphaDivergence",
    "BinaryCrossEntropy",
    "Circle",
    "ClassificationLoss",
    "CrossEntropy",
    "LossConfig",
    "balanced_bias",
    "circle_weight",
    "create_loss",
]

LossConfig = str | dict[str, Any]

_LOSSES: dict[str, type[ClassificationLoss]] = {
    loss.name: loss for loss in (CrossEntropy, BinaryCrossEntropy, Circle, AlphaDivergence)
}


def create_loss(config: LossConfig, *, num_classes: int, scale: float) -> ClassificationLoss:
    """The loss that a name, or a mapping with `name` and parameters, describes.

    "bce" without a threshold starts at UniFace's ln(10 C).

    Raises:
        InputError: an unknown name or parameter, a parameter out of range.
    """
    if not isinstance(config, str | dict):
        raise InputError(f"loss: expected a name or a mapping with a name, got {config!r}")
    given = {"name": config} if isinstance(config, str) else dict(config)
    name = given.pop("name", None)
    if name not in _LOSSES:
        raise InputError(unknown_name("loss", str(name), _LOSSES))
    provided = {"threshold": math.log(10 * num_classes)} if name == "bce" else {}
    if name == "circle":
        provided = {"scale": scale}
    known = [key for key in inspect.signature(_LOSSES[name]).parameters if key != "scale"]
    check_arguments(f"loss {name!r}", _LOSSES[name], given, known)
    return _LOSSES[name](**(provided | given))
