"""Zhang et al., "AdaCos: Adaptively Scaling Cosine Logits", arXiv 1905.00292, 2019."""

import math

import torch
from torch import Tensor

from marginface.heads._batch import LabeledBatch
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head


@register_head("adacos")
class AdaCos(Margin):
    """f = cos(theta), no margin: the scale follows the batches.

    It begins at sqrt(2) ln(C - 1) (for two classes, where that is 0, sqrt(2) ln 2) or at `scale`;
    then scale = ln(B) / cos(min(pi/4, median target angle)), B the mean over the rows of
    sum exp(scale cos) over the negatives. A batch whose ln(B) is not positive changes nothing.
    """

    falls_with_angle = True
    slope_is_one = True
    has_fixed_scale = False
    scale: Tensor  # type: ignore[assignment]

    def __init__(
        self,
        *,
        num_classes: int,
        scale: float | None = None,
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        first = math.sqrt(2) * math.log(max(num_classes - 1, 2)) if scale is None else scale
        super().__init__(first, margin_gradient)
        del self.scale
        self.register_buffer("scale", torch.tensor(first, dtype=torch.float64))

    def curve(self, cosine: Tensor) -> Tensor:
        return cosine

    def scaled(self, values: Tensor, embeddings: Tensor) -> Tensor:
        return self.scale.clone() * values  # the next batch changes the buffer in place

    def curve_inputs(self, batch: LabeledBatch) -> dict[str, Tensor]:
        angle = batch.target.detach().clamp(-1, 1).arccos()
        self.observe(torch.stack([batch.negatives_logsumexp(self.scale), angle], 1), batch)
        return {}

    def advance(self, observed: Tensor) -> None:
        negatives, angle = observed.unbind(1)
        log_b = negatives.logsumexp(0) - math.log(len(observed))
        scale = log_b / angle.median().clamp(max=math.pi / 4).cos()
        self.scale.copy_(torch.where(log_b > 0, scale, self.scale))
