"""A margin over class centers, with a loss: the head that training runs.

Tensor names: B batch, R its rows with a label, C classes, D embedding.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from marginface.classifier.center_chunks import CenterChunks
from marginface.classifier.centers import IGNORED_LABEL, ClassCenters, full_precision
from marginface.classifier.chunked_pass import NegativeTransform, PassInputs
from marginface.classifier.directions import directions_of
from marginface.classifier.fused import mean_cross_entropy, target_and_negatives
from marginface.classifier.kernel_inputs import BatchRows, Logits
from marginface.classifier.losses import ClassificationLoss, CrossEntropy
from marginface.classifier.losses.cross_entropy import LogSumExp
from marginface.classifier.options import ClassifierOptions
from marginface.classifier.reduction import Reduction
from marginface.classifier.sharding import Shard
from marginface.heads._batch import LabeledBatch
from marginface.heads._dense import dense_logits
from marginface.heads._kernels import kernel_logits, reason_for_torch, takes_embeddings
from marginface.heads._margin import Margin
from marginface.heads._queries import Compared, Queries
from marginface.utils.errors import InputError


class MarginHead(nn.Module):
    """A margin over class centers, with a loss.

    Args:
        margin: replaces the target cosine, and for some heads those of other classes.
        centers: one or more for each class.
        loss: turns the logits of a row into a number.

    Raises:
        InputError: a loss that this margin cannot go with.
    """

    def __init__(self, margin: Margin, centers: ClassCenters, loss: ClassificationLoss) -> None:
        super().__init__()
        margin.check_loss(loss)
        self.margin, self.centers, self.loss = margin, centers, loss
        margin.seed_noise()

    # -- what others ask -------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.margin.name

    @property
    def weight(self) -> nn.Parameter:
        """(C K, D) class centers, not normalized; with a shard those of this process."""
        return self.centers.weight  # type: ignore[return-value]

    @property
    def num_classes(self) -> int:
        return self.centers.num_classes

    @property
    def embedding_size(self) -> int:
        return self.centers.embedding_size

    @property
    def shard(self) -> Shard | None:
        return self.centers.shard

    @property
    def options(self) -> ClassifierOptions:
        return self.centers.options

    def target_logit(self, cosine: Tensor, **inputs: Any) -> Tensor:
        """f(cos) of any shape, unscaled, with the gradient that `margin_gradient` names."""
        return self.margin.target_logit(cosine, **inputs)

    def begin_step(self, step: int | None = None) -> None:
        """Called by a trainer before the first micro-batch of an optimizer step.

        Without it, as in a plain loop, every call in training mode is a step of its own.

        Args:
            step: its number, None: the next one.
        """
        self.margin.begin_step(step)

    def end_steps(self) -> None:
        """Called by a trainer when it is done; calls are steps of their own again."""
        self.margin.end_steps()

    # -- the loss over all classes, in chunks ----------------------------------------------------

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over the rows whose label is not -1, with the auxiliary loss.

        Computed over chunks of the classes, see `marginface.classifier`; (B, C) logits are never
        built.

        Args:
            embeddings: (B, D) raw, i.e. not normalized; fp16 and bf16 are computed in float32.
            labels: (B,) int64 in [0, C), or -1 for a row that adds no loss.

        Raises:
            InputError: a label that is not a class.
        """
        # Triton launches on the current device, torch on that of its tensors.
        on_device = torch.cuda.device_of(embeddings)
        with torch.autocast(embeddings.device.type, enabled=False), on_device:
            self.margin.restore_step_start()
            rows = self.centers.labeled_rows(full_precision(embeddings), labels)
            e, labels, rows_of_ranks, equal_parts = rows
            chunks = self.centers.chunks(
                e.dtype,
                len(e),
                normalized=self.margin.normalizes,
                sample=self.centers.sample(labels, self.margin.optimizer_step),
            )
            compared = self._compare_with_own(e, labels, chunks)
            batch = LabeledBatch(
                e, labels, compared.target, chunks, compared.in_kernels, equal_parts
            )
            curve_inputs = self.margin.curve_inputs(batch)  # other processes may have rows
            if len(labels) == 0:
                return self._zero_loss(e)
            return self._loss(batch, compared, curve_inputs, rows_of_ranks)

    def reason_for_torch(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why the loss is computed in plain torch; None: in the GPU kernels.

        Args:
            dtype: of the computations, float32 for 16-bit embeddings.

        Raises:
            InputError: classifier.kernel=triton where no kernel can run.
        """
        return reason_for_torch(self.margin, self.centers, self.loss, device, dtype)

    def _compare_with_own(self, e: Tensor, labels: Tensor, chunks: CenterChunks) -> Compared:
        in_kernels = len(labels) > 0 and self.reason_for_torch(e.device, e.dtype) is None
        if in_kernels and takes_embeddings(self.margin, self.loss):
            from marginface.classifier.kernels.kernel_pass import prepare_rows

            rows = prepare_rows(e.detach(), labels, chunks)
            return Compared(rows.own, rows=rows, in_kernels=True)
        directions = directions_of(e) if self.margin.normalizes else e
        own = chunks.own_similarities(directions.detach(), labels)
        return Compared(chunks.nearest_own(own), directions, own, in_kernels=in_kernels)

    def _loss(
        self,
        batch: LabeledBatch,
        compared: Compared,
        curve_inputs: dict[str, Any],
        rows_of_ranks: tuple[int, ...],
    ) -> Tensor:
        assert batch.centers is not None
        changes = self.margin.changes_negatives or self.loss.changes_negatives
        queries = self._queries(batch, compared, products_are_logits=not changes)
        margin_free = target = None
        if self.loss.needs_margin_free:
            with torch.no_grad():
                target, margin_free = self._target_logits(batch, batch.target, curve_inputs)
        dtype = batch.embeddings.dtype
        reduction = self.loss.reduction(
            margin_free,
            target,
            dtype=dtype,
            bounded=not changes and self._fits_without_maximum(),
            across_ranks=self.shard is not None,
        )
        inputs = PassInputs(
            batch.centers,
            reduction,
            batch.labels,
            own=None if compared.own is None else queries.times_length(compared.own),
            target=queries.times_length(batch.target),
            transform=None if compared.in_kernels else self._negative_transform(batch.target),
            filtering_thresholds=self._filtering_thresholds(queries),
            rows_of_ranks=rows_of_ranks,
            in_kernels=self._in_kernels(batch, compared, queries.vectors),
            begin_step=self.centers.step_centers_in_backward if self.training else None,
        )
        threshold = self.loss.learned_threshold(dtype)
        vectors, weight = queries.vectors, self.centers.weight
        if not torch.is_grad_enabled():  # autograd functions do not see that by themselves
            vectors, weight = vectors.detach(), weight.detach()
        auxiliary = self.margin.auxiliary_loss(batch)
        known = self._target_in_kernels(batch, compared, reduction, curve_inputs)
        if known is not None:
            mean = mean_cross_entropy(vectors, weight, *known, inputs)
            return _sum_of(mean, auxiliary)
        product, negatives = target_and_negatives(vectors, weight, threshold, inputs)
        similarity = queries.over_length(product)
        target, margin_free = self._target_logits(batch, similarity, curve_inputs)
        mean = self.loss.combine(target, negatives, margin_free, reduction).mean()
        return _sum_of(mean, auxiliary)

    def _target_in_kernels(
        self,
        batch: LabeledBatch,
        compared: Compared,
        reduction: Reduction,
        curve_inputs: dict[str, Any],
    ) -> tuple[Tensor, Tensor | None] | None:
        """(R,) unscaled target logits and slopes, where kernels go on to the loss with them."""
        plain = type(self.loss).combine is CrossEntropy.combine and compared.rows is not None
        plain = plain and type(self.margin).target_logit is Margin.target_logit
        bounded = isinstance(reduction, LogSumExp) and reduction.bounded
        if not plain or self.shard is not None or not bounded:
            return None
        learned = [*curve_inputs.values(), *self.margin.parameters()]
        if any(isinstance(v, Tensor) and v.requires_grad for v in learned):
            return None  # the target has more gradients than that by the cosine
        if not torch.is_grad_enabled():
            return None  # no slope is wanted
        with torch.no_grad():
            return self.margin.target_and_slope(batch.target, **curve_inputs)

    def _in_kernels(
        self, batch: LabeledBatch, compared: Compared, vectors: Tensor
    ) -> tuple[Logits, BatchRows] | None:
        """The batch for the GPU kernels and how they make logits; None for plain torch."""
        if not compared.in_kernels:
            return None
        from marginface.classifier.kernels.kernel_pass import prepare_rows

        assert batch.centers is not None
        above = self.options.interclass_filtering_threshold
        logits = kernel_logits(self.margin, self.loss, batch.target, above)
        rows = compared.rows or prepare_rows(
            vectors.detach(),
            batch.labels,
            batch.centers,
            row_lengths=logits.row_lengths,
            center_lengths=logits.center_lengths,
        )
        return logits, rows

    def _queries(
        self, batch: LabeledBatch, compared: Compared, products_are_logits: bool
    ) -> Queries:
        """What the centers are multiplied with.

        Where nothing comes between product and logit, the scale is in the vectors already. Kernels
        that normalize embeddings themselves give cosines.
        """
        directions, embeddings = compared.directions, batch.embeddings
        if directions is None:
            return Queries(embeddings, 1.0)
        if not products_are_logits:
            return Queries(directions, 1.0)
        if self.margin.scales_by_a_constant:
            return Queries(self.margin.scale * directions, float(self.margin.scale))
        ones = embeddings.new_ones(len(embeddings), 1)
        lengths = self.margin.scaled(ones, embeddings).squeeze(1)
        return Queries(self.margin.scaled(directions, embeddings), lengths)

    def _target_logits(
        self, batch: LabeledBatch, similarity: Tensor, curve_inputs: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """(R,) target logits with the margin and, where the loss needs them, without."""
        with_margin = self.margin.target_logit(similarity, **curve_inputs)
        logits = self._scaled(with_margin, batch.embeddings)
        if not self.loss.needs_margin_free:
            return logits, None
        return logits, self._scaled(similarity, batch.embeddings)

    def _scaled(self, values: Tensor, embeddings: Tensor) -> Tensor:
        """(R,) unscaled to scaled logits."""
        if self.margin.scales_plainly():
            return self.margin.scale * values
        return self.margin.scaled(values[:, None], embeddings).squeeze(1)

    def _negative_transform(self, target: Tensor) -> NegativeTransform | None:
        """What is done to the cosines of other classes, by the margin or by its loss."""
        margin, loss = self.margin, self.loss
        if margin.changes_negatives:
            own = target.clamp(-1.0, 1.0)[:, None]
            through = margin.margin_gradient == "straight_through"
            return NegativeTransform(
                lambda c: margin.negative_curve(c.T, own).T,
                None if through else lambda c: margin.negative_slope(c.T, own).T,
                float(margin.scale),
                margin.snapshot(),
            )
        if loss.changes_negatives:
            return NegativeTransform(loss.negative_curve, loss.negative_slope, float(margin.scale))
        return None

    def _filtering_thresholds(self, queries: Queries) -> Tensor | float | None:
        threshold = self.options.interclass_filtering_threshold
        if threshold is None:
            return None
        if not self.margin.normalizes:
            raise InputError(
                f"classifier.interclass_filtering_threshold is a cosine; head {self.name} compares "
                "by inner products: leave it out"
            )
        lengths = queries.lengths
        return threshold * (lengths.detach() if isinstance(lengths, Tensor) else lengths)

    def _fits_without_maximum(self) -> bool:
        """Whether float32 holds sums of exp(z) as they are: largest z + ln C < 85."""
        bounded = self.margin.normalizes and self.margin.scales_by_a_constant
        return bounded and float(self.margin.scale) + math.log(self.num_classes) < 85

    def _zero_loss(self, embeddings: Tensor) -> Tensor:
        """Loss 0, not 0/0, still connected to all parameters."""
        connected = [embeddings, *self.parameters()]
        steps_inside = self.centers.step_centers_in_backward is not None
        if self.training and (self.options.samples or steps_inside):
            # A dense gradient of zeros would let momentum and weight decay move every center.
            connected = [p for p in connected if p is not self.centers.weight]
        return torch.stack([p.flatten()[:0].sum() for p in connected]).sum()

    # -- all logits at once: to inspect, and to compare with -------------------------------------

    def logits(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(B, C) scaled logits with the margin on the target; label -1 leaves a row without one."""
        return dense_logits(self.margin, self.centers, embeddings, labels)[0]

    def dense_loss(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """The same loss the plain way: all logits, then a loss over them, all by autograd.

        For tests, benchmarks and to read; works on one process without samples.
        """
        self.centers.check_labels(labels)
        logits, batch = dense_logits(self.margin, self.centers, embeddings, labels)
        if len(batch.labels) == 0:
            return self._zero_loss(embeddings)
        margin_free = self.margin.scaled(batch.target[:, None], batch.embeddings)[:, 0]
        losses = self.loss(logits[labels != IGNORED_LABEL], batch.labels, margin_free)
        return losses.mean() + self.margin.auxiliary_loss(batch)


def _sum_of(mean: Tensor, auxiliary: Tensor | float) -> Tensor:
    return mean + auxiliary if isinstance(auxiliary, Tensor) or auxiliary else mean
