"""A teacher whose embeddings are learned: the `distillation` group.

Two losses: the cosine between the embeddings of student and teacher (as of Shi et al.,
arXiv 1905.10620, and MarginDistillation), and the squared difference of the similarities of all
pairs of a batch (as in relational distillation, arXiv 1904.05068), which needs no common space.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.inference.embedder import Embedder, Precision, model_embedder
from marginface.training.extra_losses import ExtraLoss, Start, open_beside
from marginface.utils.distributed import (
    gather_counted_rows,
    gather_for_shards,
    rows_unless_equal,
)
from marginface.utils.errors import InputError


class Distillation(ExtraLoss):
    """Learn the embeddings of a teacher, which sees the same augmented images.

    Args:
        teacher: any model file: a run folder, .ckpt, published weights, .onnx, a shared folder.
        embedding_weight: of 1 - cosine of the two embeddings; needs the teacher's embedding size.
        pairs_weight: of the mean squared difference of the cosines of pairs.
        margin_weight: of the head's own loss; 0 trains without it.
        precision: of the teacher: "32-true", "bf16-mixed" or "16-mixed".

    Raises:
        InputError: weights out of range, or a file that is no network.
    """

    name = "distillation"

    def __init__(
        self,
        teacher: str,
        embedding_weight: float = 10.0,
        pairs_weight: float = 10.0,
        margin_weight: float = 1.0,
        precision: Precision = "32-true",
    ) -> None:
        for key, value in (
            ("embedding_weight", embedding_weight),
            ("pairs_weight", pairs_weight),
            ("margin_weight", margin_weight),
        ):
            if value < 0:
                raise InputError(f"distillation.{key} must not be negative, got {value}")
        if embedding_weight == pairs_weight == 0:
            raise InputError(
                "distillation.embedding_weight and pairs_weight are both 0: nothing would be "
                "learned of the teacher"
            )
        self.path, self.precision = teacher, precision
        self.embedding_weight, self.pairs_weight = embedding_weight, pairs_weight
        self.margin_weight = margin_weight
        self._teacher: Embedder | None = None
        self._equal_parts = False

    def begin(self, start: Start) -> None:
        file = open_beside("distillation.teacher", self.path, start.datamodule)
        size = start.datamodule.train_set.image_size
        self._teacher = model_embedder(
            file, flip=False, devices=[str(start.device)], precision=self.precision
        )
        black = torch.zeros(1, 3, size, size, dtype=torch.uint8)
        width = self._teacher(black).shape[1]
        if self.embedding_weight and width != start.embedding_size:
            raise InputError(
                f"distillation.teacher={self.path} makes embeddings of {width} numbers and the "
                f"student {start.embedding_size}; set backbone.embedding_size={width}, or "
                "distillation.embedding_weight=0 to learn the similarities of pairs alone"
            )
        start.datamodule.label_watchers.append(self._know_parts)

    def _know_parts(self, labels: Tensor, on_host: Tensor, equal_parts: bool) -> None:
        self._equal_parts = equal_parts

    def __call__(self, images: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
        assert self._teacher is not None, "begin is called first"
        # A copy: what comes out of inference mode must not be kept for a gradient.
        theirs = F.normalize(self._teacher(images).clone(), dim=1)
        # Differences of similarities are small: not in 16 bits.
        with torch.autocast(embeddings.device.type, enabled=False):
            return distillation_loss(
                embeddings.float(),
                theirs,
                self.embedding_weight,
                self.pairs_weight,
                self._equal_parts,
            )


def distillation_loss(
    embeddings: Tensor,
    theirs: Tensor,
    embedding_weight: float,
    pairs_weight: float,
    equal_parts: bool = False,
) -> Tensor:
    """() weighted sum of the two losses; over several processes its mean is that of all images.

    Args:
        embeddings: (B, D) of the student, of any length.
        theirs: (B, E) directions of the teacher; E may differ where embedding_weight is 0.
        equal_parts: whether it is known that every process has B of them, so that nobody asks.
    """
    own = F.normalize(embeddings, dim=1)
    loss = own.new_zeros(())
    if embedding_weight:
        loss = loss + embedding_weight * (1 - (own * theirs).sum(1)).mean()
    if pairs_weight:
        counts = rows_unless_equal(len(own), own.device, equal_parts)
        loss = loss + pairs_weight * _pairs_loss(own, theirs, counts)
    return loss


def _pairs_loss(own: Tensor, theirs: Tensor, counts: Sequence[int]) -> Tensor:
    """Mean squared difference of the cosines of all pairs of the images of all processes."""
    # The whole loss on every process, whose gradient goes to the rows of this one.
    own, theirs = gather_for_shards(own, counts), gather_counted_rows(theirs, counts)
    if len(own) < 2:
        return 0 * own.sum()
    difference = own @ own.T - theirs @ theirs.T  # the diagonal is 0
    return difference.square().sum() / (len(own) * (len(own) - 1))
