"""How a fresh head begins: the loss that random embeddings and centres give."""

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from marginface.classifier.losses import LossOverLogits
from marginface.classifier.options import ClassifierOptions
from marginface.heads._batch import Rows
from marginface.heads._running_state import StepState


class FreshHead(StepState):
    """What can be said of a head before training, from random similarities."""

    needs_norm: ClassVar[bool]
    changes_negatives: ClassVar[bool]
    embedding_size: int
    num_classes: int
    weight: Tensor
    loss: LossOverLogits
    options: ClassifierOptions

    if TYPE_CHECKING:  # what the head itself defines

        def target_logit(self, cosine: Tensor, **facts: Any) -> Tensor: ...
        def scaled(self, values: Tensor, embeddings: Tensor) -> Tensor: ...
        def auxiliary_loss(self, rows: Rows) -> Tensor | float: ...
        def _negatives(self, cosine: Tensor, target: Tensor) -> Tensor: ...

    def typical_facts(self) -> dict[str, Any]:
        """`row_facts` of an embedding after batch normalisation: its norm is sqrt(D)."""
        return {"norm": math.sqrt(self.embedding_size)} if self.needs_norm else {}

    @torch.no_grad()
    def expected_first_loss(self) -> float:
        """The loss of random centres: cosines are then N(0, 1/D), the target's is taken as 0.

        For cross-entropy without changed negatives this is softplus(ln(C - 1) + s^2 / 2D - s f(0));
        in general the sum over the negatives is integrated numerically.
        """
        cosine, density = self.random_similarities()
        centre = (density * cosine).sum()
        # A curve may jump at a right angle (easy_margin): the mean of both sides.
        loss = (self.loss_at(centre - 1e-9) + self.loss_at(centre + 1e-9)) / 2
        label = torch.zeros(1, dtype=torch.int64, device=cosine.device)
        rows = Rows(self._typical_embedding(), label, centre[None])
        return float(loss + self.auxiliary_loss(rows))

    @torch.no_grad()
    def loss_at(self, own: Tensor) -> Tensor:
        """The loss of one target cosine () against random negatives, without the auxiliary loss."""
        cosine, density = self.random_similarities()
        embedding = self._typical_embedding()
        target = self.target_logit(own, **self.typical_facts())
        negatives = self._negatives(cosine, own) if self.changes_negatives else cosine
        return self.loss.expected(
            self.scaled(target[None, None], embedding)[0, 0],
            self.scaled(negatives[None], embedding)[0],
            self.options.sample_rate * (self.num_classes - 1) * density,
        )

    def cosine_log_density(self, deviations: Tensor) -> Tensor:
        """Log density of random cosines in units of 1/sqrt(D), up to a constant."""
        return -(deviations**2) / 2

    def random_similarities(self) -> tuple[Tensor, Tensor]:
        """(n,) values of `similarity` between random vectors, and how probable each is."""
        deviations = torch.linspace(-12, 12, 4801, dtype=torch.float64, device=self.weight.device)
        cosine = (deviations / math.sqrt(self.embedding_size)).clamp(-1, 1)
        return cosine, self.cosine_log_density(deviations).softmax(0)

    def _typical_embedding(self) -> Tensor:
        # All ones: as long as embeddings after batch normalisation.
        size = (1, self.embedding_size)
        return torch.ones(size, dtype=torch.float64, device=self.weight.device)
