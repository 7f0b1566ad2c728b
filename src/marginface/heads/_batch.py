"""The labeled rows of a batch, as a margin sees them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.classifier.center_chunks import Centres
from marginface.classifier.chunked_pass import Plan, reduce_classes
from marginface.classifier.losses.cross_entropy import LogSumExp
from marginface.classifier.nearest import nearest_classes, pick_centres


@dataclass(frozen=True)
class Rows:
    """The rows of a batch that have a label; with sharded centres those of all processes."""

    embeddings: Tensor  # (R, D), raw, float32 or float64
    labels: Tensor  # (R,) in [0, C)
    target: Tensor  # (R,) similarity to the own centre
    centres: Centres | None = None  # what the rows are compared with

    def norms(self) -> Tensor:
        """(R,) lengths of the embeddings; the gradient of a zero embedding is zero."""
        return self.embeddings.norm(dim=1)

    @torch.no_grad()
    def negatives_logsumexp(self, factor: Tensor) -> Tensor:
        """(R,) log sum exp(factor x similarity) over all other classes."""
        assert self.centres is not None
        directions = F.normalize(self.embeddings) if self.centres.normalised else self.embeddings
        total = LogSumExp(across_ranks=self.centres.shard is not None)
        reduce_classes(factor * directions, Plan(self.centres, total, self.labels))
        return total.value

    def nearest_other_centre(self) -> Tensor:
        """(R,) cosine between the own centre and the nearest other one, with its gradient."""
        assert self.centres is not None
        own = F.normalize(pick_centres(self.centres, self.labels))
        _, nearest = nearest_classes(self.centres, own.detach(), without=self.labels)
        return (own * F.normalize(pick_centres(self.centres, nearest))).sum(1)
