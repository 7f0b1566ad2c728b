"""The loss of a head over all classes: fused, which training runs, and dense, to compare with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.classifier.centres import Centres
from marginface.classifier.fused import other_classes
from marginface.classifier.rows import Rows, nearest_classes
from marginface.classifier.sampling import sample_classes
from marginface.classifier.walk import Plan, Transform
from marginface.distributed import (
    gather_counted_rows,
    gather_for_shards,
    gather_rows_of_any_number,
    own_slice,
    rows_of_ranks,
)
from marginface.errors import InputError

if TYPE_CHECKING:
    from marginface.heads.base import MarginHead

IGNORED_LABEL = -1


def fused_loss(head: MarginHead, embeddings: Tensor, labels: Tensor) -> Tensor:
    """Mean loss over the labelled rows, with the auxiliary loss, without (R, C) logits.

    Args:
        embeddings: (B, D) float32 or float64, raw.
        labels: (B,) int64 in [0, C), -1 for rows that add no loss.
    """
    head.rewind()
    e, labels, counts = _labelled(head, embeddings, labels)
    check_labels(head, labels)
    directions = F.normalize(e) if head.normalises else e
    centres = all_centres(head, e.dtype, len(e), _sample(head, labels))
    own = centres.own_similarity(directions.detach(), labels)
    rows = Rows(e, labels, own, centres)
    facts = head.row_facts(rows)  # also without rows: other processes may have some
    if len(labels) == 0:
        return _nothing(head, e)
    # Logits are scale x cosine, unless something is done to the cosines first.
    transform = _transform(head, own)
    ones = e.new_ones(len(e), 1)
    lengths = ones[:, 0] if transform else head.scaled(ones, e)[:, 0]
    queries = directions if transform else head.scaled(directions, e)
    margin_free = head.scaled(own[:, None], e.detach())[:, 0]
    with torch.no_grad():
        with_margin = head.scaled(head.target_logit(own, **facts)[:, None], e)[:, 0]
    reduction = head.loss.reduction(
        margin_free,
        with_margin,
        bounded=_fits_without_maximum(head, transform is None),
        across_ranks=head.shard is not None,
    )
    above = head.options.filter_above
    if above is not None and not head.normalises:
        raise InputError(f"classifier.filter_above is a cosine; head {head.name} has none")
    plan = Plan(
        centres,
        reduction,
        labels,
        target=lengths.detach() * own,
        transform=transform,
        filtered_above=None if above is None else above * lengths.detach(),
        rows_of_ranks=counts,
        begin_step=head.begin_centre_step if head.training else None,
    )
    threshold = head.loss.learned_threshold(e.dtype)
    weight = head.weight
    if not torch.is_grad_enabled():  # autograd functions do not see that by themselves
        queries, weight = queries.detach(), weight.detach()
    similarity, others = other_classes(queries, weight, threshold, plan)
    similarity = similarity / lengths.clamp_min(1e-12)
    target = head.scaled(head.target_logit(similarity, **facts)[:, None], e)[:, 0]
    margin_free = head.scaled(similarity[:, None], e)[:, 0]
    losses = head.loss.combine(target, others, margin_free, reduction)
    return losses.mean() + head.auxiliary_loss(rows)


def dense_loss(head: MarginHead, embeddings: Tensor, labels: Tensor) -> Tensor:
    """The same loss the plain way: all logits, then a loss over them, all by autograd.

    For tests, benchmarks and to read; knows neither shards nor samples.
    """
    check_labels(head, labels)
    logits, rows = head.logits_and_rows(embeddings, labels)
    labelled = labels != IGNORED_LABEL
    if not labelled.any():
        return _nothing(head, embeddings)
    target = rows.target[:, None]
    margin_free = head.scaled(target, rows.embeddings)[:, 0]
    losses = head.loss(logits[labelled], rows.labels, margin_free)
    return losses.mean() + head.auxiliary_loss(rows)


@torch.no_grad()
def predictions(head: MarginHead, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What a head would say by cosines, without margins: all classes are compared with.

    Returns:
        (B,) nearest classes, (B,) cosine to the own class; of a shard for the own rows.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        return _predictions(head, head.full_precision(embeddings), labels)


def _predictions(head: MarginHead, e: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    here = slice(None)
    if head.shard is not None:
        counts = rows_of_ranks(len(e), e.device)
        here = own_slice(counts)
        e, labels = gather_for_shards(e, counts), gather_counted_rows(labels, counts)
    directions = F.normalize(e)
    centres = all_centres(head, e.dtype, len(e), normalised=True)
    own = centres.own_similarity(directions, labels)
    _, nearest = nearest_classes(centres, directions)
    return nearest[here], own[here]


def check_labels(head: MarginHead, labels: Tensor) -> None:
    """InputError for a label that is no class."""
    if len(labels) == 0:
        return
    low, high = torch.stack([labels.min(), labels.max()]).tolist()
    if low < IGNORED_LABEL or high >= head.num_classes:
        raise InputError(
            f"labels from {low} to {high} for {head.num_classes} classes: they must be in "
            f"[0, {head.num_classes}), or -1 for a row that adds no loss"
        )


def _labelled(
    head: MarginHead, embeddings: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Rows with a label: those here, or with sharded centres those of all processes."""
    index = (labels != IGNORED_LABEL).nonzero().squeeze(1)
    if len(index) < len(labels):
        embeddings, labels = embeddings[index], labels[index]
    if head.shard is None:
        return embeddings, labels, (len(labels),)
    counts = tuple(rows_of_ranks(len(labels), labels.device))
    if len(counts) != head.shard.world:
        raise InputError(
            f"this head has one of {head.shard.world} parts of the class centres, and "
            f"{len(counts)} processes compute: all {head.shard.world} have to, each with its part"
        )
    gathered = gather_for_shards(embeddings, counts, head.options.collectives)
    return gathered, gather_counted_rows(labels, counts), counts


def _nothing(head: MarginHead, embeddings: Tensor) -> Tensor:
    """Loss 0, not 0/0, still connected to all parameters."""
    connected = [embeddings, *head.parameters()]
    if head.training and (head.options.samples or head.begin_centre_step is not None):
        # A dense gradient of zeros would let momentum and weight decay move every centre.
        connected = [p for p in connected if p is not head.weight]
    return torch.stack([p.flatten()[:0].sum() for p in connected]).sum()


def _sample(head: MarginHead, labels: Tensor) -> Tensor | None:
    options = head.options
    if not (options.samples and head.training):
        return None
    seen = gather_rows_of_any_number(labels) if head.shard is None else labels
    return sample_classes(
        seen, head.num_classes, options.sample_rate, head.seed, head.optimizer_step
    )


def all_centres(
    head: MarginHead,
    dtype: torch.dtype,
    rows_of_batch: int,
    sample: Tensor | None = None,
    *,
    normalised: bool | None = None,
) -> Centres:
    """The centres of a head as its loss compares with them, or differently where that is given.

    Args:
        sample: only these classes.
        normalised: by cosines or by inner products.
    """
    return Centres(
        head.weight,
        dtype,
        per_class=head.centres_per_class,
        normalised=head.normalises if normalised is None else normalised,
        shard=head.shard,
        sample=sample,
        options=head.options,
        rows_of_batch=rows_of_batch,
    )


def _transform(head: MarginHead, own: Tensor) -> Transform | None:
    """What is done to the cosines of other classes, by the head or by its loss."""
    if head.changes_negatives:
        target = own.clamp(-1.0, 1.0)[:, None]
        through = head.margin_gradient == "straight_through"
        return Transform(
            lambda c: head.negative_curve(c.T, target).T,
            None if through else lambda c: head.negative_slope(c.T, target).T,
            float(head.scale),
            head.recall(),
        )
    if head.loss.changes_negatives:
        return Transform(head.loss.negative_curve, head.loss.negative_slope, float(head.scale))
    return None


def _fits_without_maximum(head: MarginHead, plain: bool) -> bool:
    """Whether float32 holds sums of exp(z) as they are: largest z + ln C < 85."""
    bounded = plain and head.normalises and head.scales_by_a_constant
    return bounded and float(head.scale) + math.log(head.num_classes) < 85
