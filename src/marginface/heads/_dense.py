"""All logits at once, in plain torch: for inspection, and as reference of the loss over chunks."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.classifier.centers import IGNORED_LABEL, ClassCenters, full_precision
from marginface.heads._batch import LabeledBatch
from marginface.heads._margin import Margin
from marginface.utils.errors import InputError


def dense_logits(
    margin: Margin, centers: ClassCenters, embeddings: Tensor, labels: Tensor
) -> tuple[Tensor, LabeledBatch]:
    """(B, C) scaled logits with the margin on the target, and the labeled rows they are for.

    Args:
        embeddings: (B, D) raw.
        labels: (B,) in [0, C), -1 for a row without a target.

    Raises:
        InputError: centers that are sharded over processes.
    """
    if centers.shard is not None:
        raise InputError("the centers of this head are sharded over processes: no (B, C) logits")
    with torch.autocast(embeddings.device.type, enabled=False):
        margin.restore_step_start()
        e = full_precision(embeddings)
        similarity = dense_similarity(margin, centers, e)
        index = (labels != IGNORED_LABEL).nonzero().squeeze(1)
        columns = labels[index]
        own = similarity[index, columns]
        chunks = centers.chunks(e.dtype, len(index), normalized=margin.normalizes)
        batch = LabeledBatch(e[index], columns, own, chunks)
        target = margin.target_logit(own, **margin.curve_inputs(batch))
        if margin.changes_negatives:
            # No cosine is above that of a row without a label: nothing compares with NaN.
            targets = torch.full_like(e[:, :1], math.nan)
            targets = targets.index_put((index,), own.detach()[:, None])
            similarity = margin.negatives(similarity, targets)
        return margin.scaled(similarity.index_put((index, columns), target), e), batch


def dense_similarity(margin: Margin, centers: ClassCenters, embeddings: Tensor) -> Tensor:
    """(B, D) raw embeddings to (B, C) what curves act on, to the nearest center of each class.

    Cosines, or inner products for a margin that does not normalize.
    """
    weight = centers.weight.to(embeddings.dtype)
    if not margin.normalizes:
        return F.linear(embeddings, weight)
    every = F.linear(F.normalize(embeddings), F.normalize(weight))
    k = centers.centers_per_class
    return every if k == 1 else every.unflatten(1, (-1, k)).amax(2)
