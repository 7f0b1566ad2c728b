"""Nearest classes of embeddings, and single centers, from whichever process has them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.classifier.center_chunks import CenterChunks
from marginface.classifier.centers import ClassCenters, full_precision
from marginface.classifier.chunked_pass import PassInputs, reduce_classes
from marginface.classifier.reduction import Largest
from marginface.utils.distributed import (
    gather_counted_rows,
    gather_for_shards,
    largest_over_ranks,
    own_slice,
    rows_of_ranks,
)


@torch.no_grad()
def predictions(centers: ClassCenters, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Classification by cosines, without a margin and without a sample.

    Args:
        embeddings: (B, D) raw.
        labels: (B,) in [0, C).

    Returns:
        (B,) nearest classes, (B,) cosine to the own class.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        e, own_rows = full_precision(embeddings), slice(None)
        if centers.shard is not None:
            counts = rows_of_ranks(len(e), e.device)
            own_rows = own_slice(counts)
            e, labels = gather_for_shards(e, counts), gather_counted_rows(labels, counts)
        directions = F.normalize(e)
        chunks = centers.chunks(e.dtype, len(e), normalized=True)
        target = chunks.target_similarity(directions, labels)
        _, nearest = nearest_classes(chunks, directions)
        return nearest[own_rows], target[own_rows]


@torch.no_grad()
def nearest_classes(
    centers: CenterChunks, directions: Tensor, without: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """(R,) largest similarity to any class, (R,) which class, but for the (R,) classes without."""
    found = Largest()
    reduce_classes(directions, PassInputs(centers, found, without))
    if centers.count == 0:  # all with other processes
        classes = torch.full_like(found.position, centers.num_classes)
    else:
        position = found.position.clamp(min=0)
        classes = position if centers.index is None else centers.index[position]
        classes = classes + centers.first
    if centers.shard is None:
        return found.value, classes
    value = largest_over_ranks(found.value.clone())
    # Ties: the first, as argmax.
    mine = torch.where(found.value == value, classes, centers.num_classes)
    return value, -largest_over_ranks(-mine)


def pick_centers(centers: CenterChunks, classes: Tensor) -> Tensor:
    """(R, D) the centers of classes, not normalized, from whichever process has them."""
    picked: Tensor = _PickCenters.apply(centers.parameter, centers, classes)
    return picked


class _PickCenters(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameter: Tensor, centers: CenterChunks, classes: Tensor) -> Tensor:
        ctx.centers, ctx.classes = centers, classes
        ctx.shape, ctx.dtype = parameter.shape, parameter.dtype
        return centers.sum_over_shards(centers.own_centers(classes))

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        # Every process computes the same from the whole batch, so nothing is added up.
        mine, local = ctx.centers.classes_here(ctx.classes)
        of_rows = upstream[0][mine].to(ctx.dtype)
        gradient = torch.sparse_coo_tensor(local[None], of_rows, ctx.shape, check_invariants=False)
        return gradient, None, None
