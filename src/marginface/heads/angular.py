"""cos(theta + m) and its derivative, with a named policy for angles it takes past pi."""

import math
from typing import Literal

import torch
from torch import Tensor

from marginface.errors import InputError
from marginface.heads.base import away_from_poles

EasyMargin = Literal["none", "monotone", "easy"]


def check_easy_margin(easy_margin: str) -> None:
    """InputError unless it is a known policy."""
    if easy_margin not in ("none", "monotone", "easy"):
        raise InputError(f"easy_margin must be 'none', 'monotone' or 'easy', got {easy_margin!r}")


def add_angle(cosine: Tensor, margin: float, easy_margin: EasyMargin = "none") -> Tensor:
    """cos(theta + margin), margin in radians.

    Past theta + margin = pi: "none" lets the cosine rise again (insightface since 2022-12);
    "monotone" continues with cos - margin sin(margin) (insightface 2021, TFace, CurricularFace).
    "easy" applies the margin only below 90 degrees (MagFace).
    """
    sine = ((1 - cosine) * (1 + cosine)).clamp(min=0).sqrt()
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    unshifted = _without_angle(cosine, margin, easy_margin)
    return torch.where(_keeps_angle(cosine, margin, easy_margin), shifted, unshifted)


def add_angle_slope(cosine: Tensor, margin: float, easy_margin: EasyMargin = "none") -> Tensor:
    """d cos(theta + margin) / d cos = sin(theta + margin) / sin(theta), a pole at cos = +-1."""
    inside = away_from_poles(cosine)
    sine = ((1 - inside) * (1 + inside)).sqrt()
    slope = math.cos(margin) + inside / sine * math.sin(margin)
    return torch.where(_keeps_angle(cosine, margin, easy_margin), slope, torch.ones_like(slope))


def _keeps_angle(cosine: Tensor, margin: float, easy_margin: EasyMargin) -> Tensor:
    if easy_margin == "easy":
        return cosine > 0
    if easy_margin == "monotone":
        return cosine > math.cos(math.pi - margin)
    return torch.ones_like(cosine, dtype=torch.bool)


def _without_angle(cosine: Tensor, margin: float, easy_margin: EasyMargin) -> Tensor:
    return cosine - margin * math.sin(margin) if easy_margin == "monotone" else cosine
