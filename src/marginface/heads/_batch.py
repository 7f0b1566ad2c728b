"""The labeled rows of a batch, as a margin receives them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.classifier.center_chunks import CenterChunks
from marginface.classifier.chunked_pass import PassInputs, reduce_classes
from marginface.classifier.losses.cross_entropy import LogSumExp
from marginface.classifier.nearest import nearest_classes, pick_centers


@dataclass(frozen=True)
class LabeledBatch:
    """The rows of a batch that have a label; with sharded centers those of all processes."""

    embeddings: Tensor  # (R, D), raw, float32 or float64
    labels: Tensor  # (R,) in [0, C)
    target: Tensor  # (R,) similarity to the own center
    centers: CenterChunks | None = None  # what the rows are compared with
    in_kernels: bool = False  # whether GPU kernels do that
    equal_parts: bool = False  # whether it is known that every process has as many rows

    @property
    def has_all_rows(self) -> bool:
        """Whether these are the rows of all processes, and not those of this one."""
        return self.centers is not None and self.centers.shard is not None

    def norms(self) -> Tensor:
        """(R,) lengths of the embeddings; the gradient of a zero embedding is zero."""
        return self.embeddings.norm(dim=1)

    @torch.no_grad()
    def negatives_logsumexp(self, factor: Tensor) -> Tensor:
        """(R,) log sum exp(factor x similarity) over all other classes."""
        assert self.centers is not None
        directions = F.normalize(self.embeddings) if self.centers.normalized else self.embeddings
        total = LogSumExp(across_ranks=self.centers.shard is not None)
        vectors, inputs = factor * directions, PassInputs(self.centers, total, self.labels)
        if not self.in_kernels:
            reduce_classes(vectors, inputs)
            return total.value
        from marginface.classifier.kernels.kernel_pass import reduce_products

        reduce_products(vectors, inputs)
        return total.value

    def nearest_other_center(self) -> Tensor:
        """(R,) cosine between the own center and the nearest other one, with its gradient."""
        assert self.centers is not None
        own = F.normalize(pick_centers(self.centers, self.labels))
        _, nearest = nearest_classes(self.centers, own.detach(), without=self.labels)
        return (own * F.normalize(pick_centers(self.centers, nearest))).sum(1)
