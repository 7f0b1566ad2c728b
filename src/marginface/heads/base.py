"""What all margin heads share: class centres, cosines, gradient modes, state, the loss.

A head is only its curve. Tensor names: B batch, R its rows with a label, C classes, D embedding.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marginface.errors import InputError
from marginface.heads.slopes import derivative
from marginface.heads.state import StepState
from marginface.losses import LossSpec, create_loss

MarginGradient = Literal["straight_through", "exact"]
IGNORED_LABEL = -1


@dataclass(frozen=True)
class Rows:
    """The rows of a batch that have a label."""

    embeddings: Tensor  # (R, D), raw, float32 or float64
    labels: Tensor  # (R,) in [0, C)
    cosine: Tensor  # (R, C) to all centres
    target: Tensor  # (R,) to the own centre

    def norms(self) -> Tensor:
        """(R,) lengths of the embeddings; the gradient of a zero embedding is zero."""
        return self.embeddings.norm(dim=1)


class MarginHead(StepState):
    """Cosine softmax whose target cosine is replaced by a curve f.

    Subclasses define `curve` and, where autograd through it would be wrong or infinite, `slope`;
    `negative_curve` when other columns change too; `row_facts` when the curve needs more than the
    cosine; `advance` when buffers follow the batches.

    Args:
        embedding_size: D, length of the embeddings.
        num_classes: C, number of identities, at least 2.
        scale: factor on all logits, > 0.
        margin_gradient: what the backward pass takes for df/dcos. "straight_through": 1, the margin
            is a constant to autograd (official X2-Softmax, insightface since 2022). "exact": the
            derivative of the curve.
        loss: "cross_entropy", "bce", "circle" or "alpha_divergence", or a mapping with `name` and
            parameters of the loss, see `marginface.losses`.

    Raises:
        InputError: a size or parameter out of range.
    """

    name: ClassVar[str]
    changes_negatives: ClassVar[bool] = False
    needs_norm: ClassVar[bool] = False
    slope_is_one: ClassVar[bool] = False  # df/dcos is 1, so both gradients agree
    has_fixed_scale: ClassVar[bool] = True  # logits are `scale` times values of the curves
    falls_with_angle: ClassVar[bool] = False  # f falls strictly over [0, pi] at the defaults
    weight: Tensor

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        scale: float = 64.0,
        margin_gradient: str = "straight_through",
        loss: LossSpec = "cross_entropy",
        centres_per_class: int = 1,
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
        rows = num_classes * centres_per_class
        self.weight = nn.Parameter(torch.empty(rows, embedding_size).normal_(0, 0.01))

    def _check_loss(self, loss: LossSpec) -> None:
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

        Args:
            cosine: (R, C) cosines in [-1, 1].
            target: (R, 1) cosines of the targets.
        """
        raise NotImplementedError(f"{type(self).__name__} changes no negatives")

    def negative_slope(self, cosine: Tensor, target: Tensor) -> Tensor:
        """dg/dcos, finite on [-1, 1]."""
        return derivative(lambda c: self.negative_curve(c, target), cosine)

    def row_facts(self, rows: Rows) -> dict[str, Any]:
        """Keyword arguments of `curve` beside the cosine, (R,) each; state is advanced here."""
        return {}

    def auxiliary_loss(self, rows: Rows) -> Tensor | float:
        """What is added to the mean loss, already averaged over the rows."""
        return 0.0

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
        """(B, D) raw embeddings to (B, C) cosines in float32 (float64 stays), outside autocast."""
        with torch.autocast(embeddings.device.type, enabled=False):
            e = self.full_precision(embeddings)
            return F.linear(F.normalize(e), F.normalize(self.weight.to(e.dtype)))

    def similarity(self, embeddings: Tensor) -> Tensor:
        """(B, C) what curves act on: the cosines."""
        return self.cosine(embeddings)

    def scaled(self, values: Tensor, embeddings: Tensor) -> Tensor:
        """(B, n) unscaled to scaled logits."""
        return self.scale * values

    def logits(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(B, C) scaled logits with the margin on the target; label -1 leaves a row without one."""
        logits, _ = self._logits_and_rows(embeddings, labels)
        return logits

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss over the rows whose label is not -1, with the auxiliary loss.

        Args:
            embeddings: (B, D) raw, i.e. not normalised; fp16 and bf16 are computed in float32.
            labels: (B,) int64 in [0, C), or -1 for a row that adds no loss.
        """
        logits, rows = self._logits_and_rows(embeddings, labels)
        with torch.autocast(logits.device.type, enabled=False):
            if len(rows.labels) == 0:  # loss 0, not 0/0, still connected to all parameters
                zeros = [(p * 0).sum() for p in (embeddings, *self.parameters())]
                return torch.stack(zeros).sum()
            if len(rows.labels) < len(labels):
                logits = logits[labels != IGNORED_LABEL]
            margin_free = self.scaled(rows.target[:, None], rows.embeddings).squeeze(1)
            losses = self.loss(logits, rows.labels, margin_free)
            return losses.mean() + self.auxiliary_loss(rows)

    def _logits_and_rows(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Rows]:
        with torch.autocast(embeddings.device.type, enabled=False):
            self.rewind()
            e = self.full_precision(embeddings)
            cosine = self.similarity(e)
            index = (labels != IGNORED_LABEL).nonzero().squeeze(1)
            columns = labels[index]
            all_rows = len(index) == len(labels)
            rows = Rows(
                e if all_rows else e[index],
                columns,
                cosine if all_rows else cosine[index],
                cosine[index, columns],
            )
            target = self.target_logit(rows.target, **self.row_facts(rows))
            if self.changes_negatives:
                # No cosine is above that of a row without a label: nothing compares with NaN.
                own = torch.full_like(e[:, :1], math.nan)
                own = own.index_put((index,), rows.target.detach()[:, None])
                cosine = self._negatives(cosine, own)
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

    # -- how a fresh head begins -----------------------------------------------------------------

    def typical_facts(self) -> dict[str, Any]:
        """`row_facts` of an embedding after batch normalisation: its norm is sqrt(D)."""
        return {"norm": math.sqrt(self.embedding_size)} if self.needs_norm else {}

    @torch.no_grad()
    def expected_first_loss(self) -> float:
        """The loss of random centres: cosines are then N(0, 1/D), the target's is taken as 0.

        For cross-entropy without changed negatives this is softplus(ln(C - 1) + s^2 / 2D - s f(0));
        in general the sum over the negatives is integrated numerically.
        """
        cosine, density = self.random_similarities()
        centre = (density * cosine).sum()
        # A curve may jump at a right angle (easy_margin): the mean of both sides.
        loss = (self.loss_at(centre - 1e-9) + self.loss_at(centre + 1e-9)) / 2
        label = torch.zeros(1, dtype=torch.int64, device=cosine.device)
        rows = Rows(self._typical_embedding(), label, cosine[None], centre[None])
        return float(loss + self.auxiliary_loss(rows))

    @torch.no_grad()
    def loss_at(self, own: Tensor) -> Tensor:
        """The loss of one target cosine () against random negatives, without the auxiliary loss."""
        cosine, density = self.random_similarities()
        embedding = self._typical_embedding()
        target = self.target_logit(own, **self.typical_facts())
        negatives = self._negatives(cosine, own) if self.changes_negatives else cosine
        return self.loss.expected(
            self.scaled(target[None, None], embedding)[0, 0],
            self.scaled(negatives[None], embedding)[0],
            (self.num_classes - 1) * density,
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
        # All ones: as long as embeddings after batch normalisation.
        size = (1, self.embedding_size)
        return torch.ones(size, dtype=torch.float64, device=self.weight.device)

    def extra_repr(self) -> str:
        return f"embedding_size={self.embedding_size}, num_classes={self.num_classes}"


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
