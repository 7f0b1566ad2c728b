"""Random margins: base class of both ElasticFace heads, arXiv 2109.09416."""

from typing import Literal

import torch
from torch import Tensor

from marginface.heads._batch import LabeledBatch
from marginface.heads._margin import Margin, MarginGradient
from marginface.utils.distributed import rank
from marginface.utils.seeded_random import hash_normal

Compat = Literal["paper", "official_code"]


class ElasticMargin(Margin):
    """Training draws margins from N(margin, sigma^2), not truncated; otherwise they are `margin`.

    The draws follow from a key, drawn when the head is made and saved with it, and from the step.
    They are hashed where these two are, so that nobody waits for a GPU to know them.

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
        scale: float,
        margin_gradient: MarginGradient,
        *,
        margin: float,
        sigma: float,
        plus: bool,
        compat: Compat,
    ) -> None:
        super().__init__(scale, margin_gradient)
        self.margin, self.sigma, self.plus, self.compat = margin, sigma, plus, compat
        self.register_buffer("key", torch.zeros((), dtype=torch.int64))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def seed_noise(self) -> None:
        self.key.copy_(torch.randint(2**40, ()))

    def curve_inputs(self, batch: LabeledBatch) -> dict[str, Tensor]:
        if not self.training:
            return {}
        self.observe(batch.target, batch)
        place = 0 if batch.has_all_rows else rank()
        margins = self._draw(len(batch.target), place).to(batch.target.dtype)
        return {"margin": self._sorted(margins, batch.target.detach()) if self.plus else margins}

    def advance(self, observed: Tensor) -> None:
        self.step += 1

    def _draw(self, number: int, place: int) -> Tensor:
        part = len(self._seen)  # of the micro-batches of this step
        seed = ((self.key + self.step) * 1024 + place) * 1024 + part
        return self.margin + self.sigma * hash_normal(seed, number)

    def _sorted(self, margins: Tensor, cosine: Tensor) -> Tensor:
        ascending = margins.sort().values
        from_easy_to_hard = cosine.argsort(descending=True)
        if self.compat == "official_code":
            return ascending[from_easy_to_hard]
        return torch.empty_like(margins).scatter_(0, from_easy_to_hard, ascending)
