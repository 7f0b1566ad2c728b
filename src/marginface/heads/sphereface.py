"""Liu et al., "SphereFace: Deep Hypersphere Embedding", arXiv 1704.08063, 2017."""

import torch
from torch import Tensor

from marginface.heads._batch import LabeledBatch
from marginface.heads._functional import multiply_angle
from marginface.heads._margin import Margin, MarginGradient
from marginface.heads._registry import register_head
from marginface.utils.arguments import NotNegative, WholeNumber


@register_head("sphereface")
class SphereFace(Margin):
    """A-Softmax: f = psi(theta), |x| not normalized; psi is cos(m theta) made monotone.

    The target is (psi + l cos)/(1 + l), l = max(lambda_min, lambda_max / (1 + lambda_decay step)).
    """

    has_fixed_scale = False
    falls_with_angle = True
    step: Tensor

    def __init__(
        self,
        *,
        scale: float = 1.0,
        m: WholeNumber = 4,
        lambda_max: NotNegative = 1000.0,
        lambda_min: NotNegative = 5.0,
        lambda_decay: NotNegative = 0.12,
        margin_gradient: MarginGradient = "exact",
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.m, self.lambda_max = m, lambda_max
        self.lambda_min, self.lambda_decay = lambda_min, lambda_decay
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def curve(self, cosine: Tensor, annealing: float | Tensor = 0.0) -> Tensor:
        return (multiply_angle(cosine, self.m) + annealing * cosine) / (1 + annealing)

    def curve_inputs(self, batch: LabeledBatch) -> dict[str, Tensor]:
        self.observe(batch.labels, batch)
        annealing = self.lambda_max / (1 + self.lambda_decay * self.step.to(batch.target))
        return {"annealing": annealing.clamp(min=self.lambda_min)}

    def advance(self, observed: Tensor) -> None:
        self.step += 1

    def scaled(self, values: Tensor, embeddings: Tensor) -> Tensor:
        return self.scale * embeddings.norm(dim=1, keepdim=True) * values

    def typical_curve_inputs(self, embedding_size: int, num_classes: int) -> dict[str, float]:
        return {"annealing": self.lambda_max / (1 + self.lambda_decay)}
