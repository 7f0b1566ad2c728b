"""Detectors of faces that a user might write."""

from typing import Any

import numpy as np

from marginface.data.alignment.template import TEMPLATE


def detect_badly(rgb: np.ndarray) -> Any:
    if rgb[0, 0, 0] % 2:
        raise IndexError("no face")
    return [TEMPLATE]


def detect(rgb: np.ndarray) -> list[Any]:
    """What a user's detector may return: a small face and a larger one."""
    return [TEMPLATE * 0.2, (TEMPLATE, 0.9)]


def detect_wrongly(rgb: np.ndarray) -> Any:
    return [np.zeros((4, 2))]


def detect_in_light(rgb: np.ndarray) -> list[Any]:
    """A face wherever it is not dark."""
    return [TEMPLATE] if rgb.mean() > 10 else []
