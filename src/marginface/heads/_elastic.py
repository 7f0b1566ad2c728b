"""Margins drawn for each image: what both ElasticFace heads share, arXiv 2109.09416."""

from typing import Literal

import torch
from torch import Tensor

from marginface.classifier.losses import LossConfig
from marginface.heads._batch import LabeledBatch
from marginface.heads._head import MarginGradient, MarginHead
from marginface.utils.distributed import rank

Compat = Literal["paper", "official_code"]


class ElasticHead(MarginHead):
    """Training draws margins from N(margin, sigma^2), not truncated; otherwise they are `margin`.

    The draws follow from a key, made when the head is and saved with it, and the step.

    Args:
        margin: mean of the margins.
        sigma: their standard deviation, >= 0.
        plus: give the largest margin to the hardest image (ElasticFace+), among the images that a
            process computes at once.
        compat: "official_code" repeats its slip in plus, which sorts by the wrong permutation.
    """

    key: Tensor
    step: Tensor

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        scale: float,
        margin_gradient: MarginGradient,
        loss: LossConfig,
        *,
        margin: float,
        sigma: float,
        plus: bool,
        compat: Compat,
    ) -> None:
        super().__init__(embedding_size, num_classes, scale, margin_gradient, loss)
        self.margin, self.sigma, self.plus, self.compat = margin, sigma, plus, compat
        self.register_buffer("key", torch.randint(2**40, ()))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def curve_inputs(self, rows: LabeledBatch) -> dict[str, Tensor]:
        if not self.training:
            return {}
        self.observe(rows.target)
        margins = self._draw(len(rows.target)).to(rows.target)
        return {"margin": self._sorted(margins, rows.target.detach()) if self.plus else margins}

    def advance(self, observed: Tensor) -> None:
        self.step += 1

    def _draw(self, number: int) -> Tensor:
        place = 0 if self.sees_all_rows else rank()
        part = len(self._seen)  # of the micro-batches of this step
        seed = ((int(self.key) + int(self.step)) * 1024 + place) * 1024 + part
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(number, generator=generator, dtype=torch.float64)
        return self.margin + self.sigma * noise

    def _sorted(self, margins: Tensor, cosine: Tensor) -> Tensor:
        ascending = margins.sort().values
        from_easy_to_hard = cosine.argsort(descending=True)
        if self.compat == "official_code":
            return ascending[from_easy_to_hard]
        return torch.empty_like(margins).scatter_(0, from_easy_to_hard, ascending)
