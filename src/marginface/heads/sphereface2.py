"""Wen et al., "SphereFace2: Binary Classification is All You Need", arXiv 2108.01513, 2022."""

from torch import Tensor

from marginface.errors import InputError
from marginface.heads.base import MarginGradient, MarginHead
from marginface.heads.registry import register_head
from marginface.losses import balanced_bias


@register_head("sphereface2")
class SphereFace2(MarginHead):
    """f = g(cos) - margin, others g(cos) + margin, g(c) = 2 ((c + 1) / 2)^t - 1, C binary losses.

    Loss: loss_weight / scale x (a softplus(-(s f + b)) + (1 - a) sum softplus(s g_j + b)) with
    a = positive_weight and a learned b that begins where both sides weigh the same. Defaults and
    gradient are OpenSphere's.
    """

    changes_negatives = True
    falls_with_angle = True

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 40.0,
        margin: float = 0.4,
        t: float = 3.0,
        positive_weight: float = 0.7,
        loss_weight: float = 50.0,
        margin_gradient: MarginGradient = "straight_through",
    ) -> None:
        if not (0 < positive_weight < 1 and t >= 1):
            raise InputError(
                "sphereface2: positive_weight must lie in (0, 1) and t be at least 1, "
                f"got {positive_weight} and {t}"
            )
        start = 2 * 0.5**t - 1  # g of an angle of 90 degrees
        odds = positive_weight / ((1 - positive_weight) * (num_classes - 1))
        loss = {
            "name": "bce",
            "threshold": -balanced_bias(odds, scale * (start - margin), scale * (start + margin)),
            "positive_weight": positive_weight,
            "negative_weight": 1 - positive_weight,
            "factor": loss_weight / scale,
        }
        super().__init__(embedding_size, num_classes, scale, margin_gradient, loss)
        self.margin, self.t = margin, t

    def curve(self, cosine: Tensor) -> Tensor:
        return self._g(cosine) - self.margin

    def negative_curve(self, cosine: Tensor, target: Tensor) -> Tensor:
        return self._g(cosine) + self.margin

    def _g(self, cosine: Tensor) -> Tensor:
        return 2 * ((cosine + 1) / 2) ** self.t - 1
