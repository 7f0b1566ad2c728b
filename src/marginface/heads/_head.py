"""What all margin heads share: class centers, cosines, gradient modes, state, the loss.

A head is only its curve. Tensor names: B batch, R its rows with a label, C classes, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marginface.classifier.center_chunks import CenterChunks
from marginface.classifier.chunked_pass import NegativeTransform, PassInputs, StepCenterRows
from marginface.classifier.fused import target_and_negatives
from marginface.classifier.losses import LossConfig, create_loss
from marginface.classifier.nearest import nearest_classes
from marginface.classifier.options import ClassifierOptions
from marginface.classifier.sampling import sample_classes
from marginface.classifier.sharding import init_centers, shard_here
from marginface.heads._batch import LabeledBatch
from marginface.heads._first_loss import FreshHead
from marginface.heads._functional import derivative
from marginface.utils.distributed import (
    gather_counted_rows,
    gather_for_shards,
    gather_rows_of_any_number,
    own_slice,
    rows_of_ranks,
)
from marginface.utils.errors import InputError

IGNORED_LABEL = -1


def fused_loss(head: MarginHead, embeddings: Tensor, labels: Tensor) -> Tensor:
    """Mean loss over the labeled rows, with the auxiliary loss, without (R, C) logits.

    Args:
        embeddings: (B, D) float32 or float64, raw.
        labels: (B,) int64 in [0, C), -1 for rows that add no loss.
    """
    head.restore_step_start()
    e, labels, counts = _labeled(head, embeddings, labels)
    check_labels(head, labels)
    directions = F.normalize(e) if head.normalizes else e
    centers = center_chunks(head, e.dtype, len(e), _sample(head, labels))
    own = centers.target_similarity(directions.detach(), labels)
    rows = LabeledBatch(e, labels, own, centers)
    facts = head.curve_inputs(rows)  # also without rows: other processes may have some
    if len(labels) == 0:
        return _zero_loss(head, e)
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
    above = head.options.interclass_filtering_threshold
    if above is not None and not head.normalizes:
        raise InputError(
            f"classifier.interclass_filtering_threshold is a cosine; head {head.name} has none"
        )
    plan = PassInputs(
        centers,
        reduction,
        labels,
        target=lengths.detach() * own,
        transform=transform,
        filtering_thresholds=None if above is None else above * lengths.detach(),
        rows_of_ranks=counts,
        begin_step=head.step_centers_in_backward if head.training else None,
    )
    threshold = head.loss.learned_threshold(e.dtype)
    weight = head.weight
    if not torch.is_grad_enabled():  # autograd functions do not see that by themselves
        queries, weight = queries.detach(), weight.detach()
    similarity, others = target_and_negatives(queries, weight, threshold, plan)
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
    labeled = labels != IGNORED_LABEL
    if not labeled.any():
        return _zero_loss(head, embeddings)
    target = rows.target[:, None]
    margin_free = head.scaled(target, rows.embeddings)[:, 0]
    losses = head.loss(logits[labeled], rows.labels, margin_free)
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
    centers = center_chunks(head, e.dtype, len(e), normalized=True)
    own = centers.target_similarity(directions, labels)
    _, nearest = nearest_classes(centers, directions)
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


def _labeled(
    head: MarginHead, embeddings: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Rows with a label: those here, or with sharded centers those of all processes."""
    index = (labels != IGNORED_LABEL).nonzero().squeeze(1)
    if len(index) < len(labels):
        embeddings, labels = embeddings[index], labels[index]
    if head.shard is None:
        return embeddings, labels, (len(labels),)
    counts = tuple(rows_of_ranks(len(labels), labels.device))
    if len(counts) != head.shard.world:
        raise InputError(
            f"this head has one of {head.shard.world} parts of the class centers, and "
            f"{len(counts)} processes compute: all {head.shard.world} have to, each with its part"
        )
    gathered = gather_for_shards(embeddings, counts, head.options.communication_precision)
    return gathered, gather_counted_rows(labels, counts), counts


def _zero_loss(head: MarginHead, embeddings: Tensor) -> Tensor:
    """Loss 0, not 0/0, still connected to all parameters."""
    connected = [embeddings, *head.parameters()]
    if head.training and (head.options.samples or head.step_centers_in_backward is not None):
        # A dense gradient of zeros would let momentum and weight decay move every center.
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


def center_chunks(
    head: MarginHead,
    dtype: torch.dtype,
    rows_of_batch: int,
    sample: Tensor | None = None,
    *,
    normalized: bool | None = None,
) -> CenterChunks:
    """The centers of a head as its loss compares with them, or differently where that is given.

    Args:
        sample: only these classes.
        normalized: by cosines or by inner products.
    """
    return CenterChunks(
        head.weight,
        dtype,
        per_class=head.centers_per_class,
        normalized=head.normalizes if normalized is None else normalized,
        shard=head.shard,
        sample=sample,
        options=head.options,
        rows_of_batch=rows_of_batch,
    )


def _transform(head: MarginHead, own: Tensor) -> NegativeTransform | None:
    """What is done to the cosines of other classes, by the head or by its loss."""
    if head.changes_negatives:
        target = own.clamp(-1.0, 1.0)[:, None]
        through = head.margin_gradient == "straight_through"
        return NegativeTransform(
            lambda c: head.negative_curve(c.T, target).T,
            None if through else lambda c: head.negative_slope(c.T, target).T,
            float(head.scale),
            head.snapshot(),
        )
    if head.loss.changes_negatives:
        return NegativeTransform(
            head.loss.negative_curve, head.loss.negative_slope, float(head.scale)
        )
    return None


def _fits_without_maximum(head: MarginHead, plain: bool) -> bool:
    """Whether float32 holds sums of exp(z) as they are: largest z + ln C < 85."""
    bounded = plain and head.normalizes and head.scales_by_a_constant
    return bounded and float(head.scale) + math.log(head.num_classes) < 85


MarginGradient = Literal["straight_through", "exact"]


class MarginHead(FreshHead):
    """Cosine softmax whose target cosine is replaced by a curve f.

    Subclasses define `curve` and, where autograd through it would be wrong or infinite, `slope`;
    `negative_curve` when other columns change too; `curve_inputs` when the curve needs more than
    the cosine; `advance` when buffers follow the batches.

    Args:
        embedding_size: D, length of the embeddings.
        num_classes: C, number of identities, at least 2.
        scale: factor on all logits, > 0.
        margin_gradient: what the backward pass takes for df/dcos. "straight_through": 1, the margin
            is a constant to autograd (official X2-Softmax, insightface since 2022). "exact": the
            derivative of the curve.
        loss: "cross_entropy", "bce", "circle" or "alpha_divergence", or a mapping with `name` and
            parameters of the loss, see `marginface.classifier.losses`.

    Raises:
        InputError: a size or parameter out of range.
    """

    name: ClassVar[str]
    changes_negatives: ClassVar[bool] = False
    needs_norm: ClassVar[bool] = False
    slope_is_one: ClassVar[bool] = False  # df/dcos is 1, so both gradients agree
    normalizes: ClassVar[bool] = True  # similarities are cosines, not inner products
    has_fixed_scale: ClassVar[bool] = True  # logits are `scale` times values of the curves
    falls_with_angle: ClassVar[bool] = False  # f falls strictly over [0, pi] at the defaults
    weight: Tensor

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        scale: float = 64.0,
        margin_gradient: str = "straight_through",
        loss: LossConfig = "cross_entropy",
        centers_per_class: int = 1,
    ) -> None:
        super().__init__()
        if embedding_size < 1:
            raise InputError(f"embedding_size must be at least 1, got {embedding_size}")
        if num_classes < 2:
            raise InputError(
                f"num_classes must be at least 2, got {num_classes}: "
                "a classifier needs a second identity to tell the first one from"
            )
        if not 0 < scale < math.inf:
            raise InputError(f"scale must be positive, got {scale}")
        if margin_gradient not in ("straight_through", "exact", "detached_weights"):
            raise InputError(f"margin_gradient: {margin_gradient!r} is not a known one")
        self.embedding_size = embedding_size
        self.num_classes = num_classes
        self.scale = scale
        self.margin_gradient = margin_gradient
        self.loss = create_loss(loss, num_classes=num_classes, scale=scale)
        self._check_loss(loss)
        # N(0, 0.01) as in insightface and X2-Softmax: the length sets how fast directions turn.
        self.shard, k = shard_here(num_classes), centers_per_class
        start, stop = (self.shard.start, self.shard.stop) if self.shard else (0, num_classes)
        drawn = init_centers(num_classes * k, embedding_size, 0.01, start * k, stop * k)
        self.weight = nn.Parameter(drawn)
        self.centers_per_class = k
        self.options = ClassifierOptions()
        self.seed = 0  # of the classes that are sampled
        # Where the backward pass is to step the centers itself: what begins such a step.
        self.step_centers_in_backward: Callable[[], StepCenterRows] | None = None

    def _check_loss(self, loss: LossConfig) -> None:
        problem = None
        if self.loss.needs_plain_negatives and self.changes_negatives:
            problem = "needs the plain cosines of other classes, which this head changes"
        elif self.loss.needs_fixed_scale and not self.has_fixed_scale:
            problem = "needs logits of a fixed scale, which this head has not"
        elif self.loss.margin_is_constant and not (
            self.slope_is_one or self.margin_gradient == "straight_through"
        ):
            problem = "takes the margin as a constant: use margin_gradient=straight_through"
        if problem is not None:
            raise InputError(f"loss {loss!r} {problem}")

    def __init_subclass__(cls, **options: Any) -> None:
        """TypeError for what the fused loss would pass over."""
        super().__init_subclass__(**options)
        for name in ("cosine", "similarity", "forward", "logits"):
            if getattr(cls, name) is not getattr(MarginHead, name):
                raise TypeError(
                    f"{cls.__name__} must not define {name}: the loss never builds all logits. "
                    "Define curve, curve_inputs, scaled, centers_per_class= or normalizes"
                )
        if cls.changes_negatives and not cls._scales_plainly():
            raise TypeError(f"{cls.__name__} changes negatives and must not define scaled as well")

    @classmethod
    def _scales_plainly(cls) -> bool:
        return cls.scaled is MarginHead.scaled

    @property
    def scales_by_a_constant(self) -> bool:
        """Whether logits are `scale` times a similarity, with a scale that never changes."""
        return self.has_fixed_scale and self._scales_plainly()

    # -- what a head defines ---------------------------------------------------------------------

    def curve(self, cosine: Tensor) -> Tensor:
        """f(cos): what replaces the target cosine, for cosines in [-1, 1].

        Facts of the rows come as further keyword arguments with defaults.
        """
        raise NotImplementedError(f"{type(self).__name__} must define curve(cosine)")

    def slope(self, cosine: Tensor, **facts: Any) -> Tensor:
        """df/dcos, finite on [-1, 1]; by autograd unless the head knows it in closed form."""
        if self.slope_is_one:
            return torch.ones_like(cosine)
        return derivative(lambda c: self.curve(c, **facts), cosine)

    def negative_curve(self, cosine: Tensor, target: Tensor) -> Tensor:
        """g(cos): what replaces the cosines of other classes, elementwise.

        Nothing but the cosine gets a gradient: parameters have no place here.

        Args:
            cosine: (R, C) cosines in [-1, 1].
            target: (R, 1) cosines of the targets.
        """
        raise NotImplementedError(f"{type(self).__name__} changes no negatives")

    def negative_slope(self, cosine: Tensor, target: Tensor) -> Tensor:
        """dg/dcos, finite on [-1, 1]."""
        return derivative(lambda c: self.negative_curve(c, target), cosine)

    def curve_inputs(self, rows: LabeledBatch) -> dict[str, Any]:
        """Keyword arguments of `curve` beside the cosine, (R,) each; state is advanced here."""
        return {}

    def auxiliary_loss(self, rows: LabeledBatch) -> Tensor | float:
        """What is added to the mean loss, already averaged over the rows."""
        return 0.0

    @property
    def sees_all_rows(self) -> bool:
        return self.shard is not None

    # -- what follows from it --------------------------------------------------------------------

    def target_logit(self, cosine: Tensor, **facts: Any) -> Tensor:
        """f(cos) of any shape, unscaled, with the gradient that `margin_gradient` names."""
        at = cosine.detach().clamp(-1.0, 1.0)
        constants = {key: _detached(value) for key, value in facts.items()}
        return self._with_gradient(
            self.curve(at, **(facts if self.margin_gradient == "exact" else constants)),
            lambda: self.slope(at, **constants),
            cosine,
        )

    def cosine(self, embeddings: Tensor) -> Tensor:
        """(B, D) raw embeddings to (B, C) cosines in float32 (float64 stays), outside autocast.

        To the nearest center of each class, where a class has several.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            e = self.full_precision(embeddings)
            every = F.linear(F.normalize(e), F.normalize(self.weight.to(e.dtype)))
            k = self.centers_per_class
            return every if k == 1 else every.unflatten(1, (-1, k)).amax(2)

    def similarity(self, embeddings: Tensor) -> Tensor:
        """(B, C) what curves act on: cosines, or inner products where nothing is normalized."""
        if self.normalizes:
            return self.cosine(embeddings)
        return F.linear(embeddings, self.weight.to(embeddings.dtype))

    def scaled(self, values: Tensor, embeddings: Tensor) -> Tensor:
        """(B, n) unscaled to scaled logits: a factor for each row, the same for all n."""
        return self.scale * values

    def logits(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(B, C) scaled logits with the margin on the target; label -1 leaves a row without one."""
        logits, _ = self.logits_and_rows(embeddings, labels)
        return logits

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over the rows whose label is not -1, with the auxiliary loss.

        Computed over chunks of the classes, see `marginface.classifier`; (B, C) logits are never
        built.

        Args:
            embeddings: (B, D) raw, i.e. not normalized; fp16 and bf16 are computed in float32.
            labels: (B,) int64 in [0, C), or -1 for a row that adds no loss.

        Raises:
            InputError: a label that is no class.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            return fused_loss(self, self.full_precision(embeddings), labels)

    def logits_and_rows(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, LabeledBatch]:
        """`logits` and the labeled rows they were made for."""
        if self.shard is not None:
            raise InputError("the centers of this head are spread over processes: no (B, C) logits")
        with torch.autocast(embeddings.device.type, enabled=False):
            self.restore_step_start()
            e = self.full_precision(embeddings)
            cosine = self.similarity(e)
            index = (labels != IGNORED_LABEL).nonzero().squeeze(1)
            columns = labels[index]
            own = cosine[index, columns]
            rows = LabeledBatch(e[index], columns, own, center_chunks(self, e.dtype, len(index)))
            target = self.target_logit(own, **self.curve_inputs(rows))
            if self.changes_negatives:
                # No cosine is above that of a row without a label: nothing compares with NaN.
                targets = torch.full_like(e[:, :1], math.nan)
                targets = targets.index_put((index,), own.detach()[:, None])
                cosine = self._negatives(cosine, targets)
            return self.scaled(cosine.index_put((index, columns), target), e), rows

    def _negatives(self, cosine: Tensor, target: Tensor) -> Tensor:
        at, own = cosine.detach().clamp(-1.0, 1.0), target.clamp(-1.0, 1.0)
        return self._with_gradient(
            self.negative_curve(at, own), lambda: self.negative_slope(at, own), cosine
        )

    def _with_gradient(self, value: Tensor, slope: Callable[[], Tensor], cosine: Tensor) -> Tensor:
        if not (cosine.requires_grad and torch.is_grad_enabled()):
            return value
        # Adds zero to the value and the slope to the gradient, so nothing differentiates arccos.
        step = cosine - cosine.detach()
        return value + (step if self.margin_gradient == "straight_through" else slope() * step)

    @staticmethod
    def full_precision(embeddings: Tensor) -> Tensor:
        """float64 stays, everything else becomes float32."""
        return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))

    def extra_repr(self) -> str:
        return f"embedding_size={self.embedding_size}, num_classes={self.num_classes}"


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
