"""How a fresh head begins: the loss that random embeddings and centers give."""

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from marginface.classifier.losses import ClassificationLoss
from marginface.classifier.options import ClassifierOptions
from marginface.heads._batch import LabeledBatch
from marginface.heads._running_state import RunningState


class FreshHead(RunningState):
    """What can be said of a head before training, from random similarities."""

    needs_norm: ClassVar[bool]
    changes_negatives: ClassVar[bool]
    embedding_size: int
    num_classes: int
    weight: Tensor
    loss: ClassificationLoss
    options: ClassifierOptions

    if TYPE_CHECKING:  # what the head itself defines

        def target_logit(self, cosine: Tensor, **facts: Any) -> Tensor: ...
        def scaled(self, values: Tensor, embeddings: Tensor) -> Tensor: ...
        def auxiliary_loss(self, rows: LabeledBatch) -> Tensor | float: ...
        def _negatives(self, cosine: Tensor, target: Tensor) -> Tensor: ...

    def typical_curve_inputs(self) -> dict[str, Any]:
        """`curve_inputs` of an embedding after batch normalization: its norm is sqrt(D)."""
        return {"norm": math.sqrt(self.embedding_size)} if self.needs_norm else {}

    @torch.no_grad()
    def expected_first_loss(self) -> float:
        """The loss of random centers: cosines are then N(0, 1/D), the target's is taken as 0.

        For cross-entropy without changed negatives this is softplus(ln(C - 1) + s^2 / 2D - s f(0));
        in general the sum over the negatives is integrated numerically.
        """
        cosine, density = self.random_similarities()
        center = (density * cosine).sum()
        # A curve may jump at a right angle (easy_margin): the mean of both sides.
        loss = (self.loss_at(center - 1e-9) + self.loss_at(center + 1e-9)) / 2
        label = torch.zeros(1, dtype=torch.int64, device=cosine.device)
        rows = LabeledBatch(self._typical_embedding(), label, center[None])
        return float(loss + self.auxiliary_loss(rows))

    @torch.no_grad()
    def loss_at(self, own: Tensor) -> Tensor:
        """The loss of one target cosine () against random negatives, without the auxiliary loss."""
        cosine, density = self.random_similarities()
        embedding = self._typical_embedding()
        target = self.target_logit(own, **self.typical_curve_inputs())
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
        # All ones: as long as embeddings after batch normalization.
        size = (1, self.embedding_size)
        return torch.ones(size, dtype=torch.float64, device=self.weight.device)
