"""The loss that an untrained head is expected to have, from random similarities.

A margin and a loss are enough: no class centers are made.
"""

from typing import Any

import torch
from torch import Tensor

from marginface.classifier.losses import ClassificationLoss
from marginface.heads._batch import LabeledBatch
from marginface.heads._head import MarginHead
from marginface.heads._margin import Margin


@torch.no_grad()
def expected_first_loss(
    margin: Margin,
    loss: ClassificationLoss,
    *,
    num_classes: int,
    embedding_size: int,
    sample_rate: float = 1.0,
) -> float:
    """The loss of random centers: cosines are then N(0, 1/D), the target's is taken as 0.

    For cross-entropy without changed negatives this is softplus(ln(C - 1) + s^2 / 2D - s f(0));
    in general the sum over the negatives is integrated numerically.

    Args:
        sample_rate: share of the classes that a step compares with.
    """
    cosine, density = margin.random_similarities(embedding_size)
    center = (density * cosine).sum()
    # A curve may jump at a right angle (easy_margin): the mean of both sides.
    sizes = {"num_classes": num_classes, "embedding_size": embedding_size}
    sides = [
        loss_at(side, margin, loss, **sizes, sample_rate=sample_rate)
        for side in (center - 1e-9, center + 1e-9)
    ]
    label = torch.zeros(1, dtype=torch.int64, device=cosine.device)
    batch = LabeledBatch(_typical_embedding(cosine, embedding_size), label, center[None])
    return float((sides[0] + sides[1]) / 2 + margin.auxiliary_loss(batch))


@torch.no_grad()
def loss_at(
    target: Tensor,
    margin: Margin,
    loss: ClassificationLoss,
    *,
    num_classes: int,
    embedding_size: int,
    sample_rate: float = 1.0,
) -> Tensor:
    """The loss of one target cosine () against random negatives, without the auxiliary loss."""
    cosine, density = margin.random_similarities(embedding_size)
    embedding = _typical_embedding(cosine, embedding_size)
    inputs = margin.typical_curve_inputs(embedding_size, num_classes)
    with_margin = margin.target_logit(target, **inputs)
    negatives = margin.negatives(cosine, target) if margin.changes_negatives else cosine
    return loss.expected(
        margin.scaled(with_margin[None, None], embedding)[0, 0],
        margin.scaled(negatives[None], embedding)[0],
        sample_rate * (num_classes - 1) * density,
    )


def sizes_of(head: MarginHead) -> dict[str, Any]:
    """The sizes of a head, as the functions of this folder take them."""
    return {
        "num_classes": head.num_classes,
        "embedding_size": head.embedding_size,
        "sample_rate": head.options.sample_rate,
    }


def _typical_embedding(like: Tensor, embedding_size: int) -> Tensor:
    # All ones: as long as embeddings after batch normalization.
    return like.new_ones(1, embedding_size)
