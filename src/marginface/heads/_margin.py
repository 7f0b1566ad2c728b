"""Base class of all margins: what replaces the target cosine, and with which gradient.

Tensor names: B batch, R its rows with a label, C classes, D embedding.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from marginface.classifier.losses import ClassificationLoss, LossConfig
from marginface.classifier.negative_kind import NegativeKind
from marginface.heads._batch import LabeledBatch
from marginface.heads._functional import derivative
from marginface.heads._running_state import RunningState
from marginface.utils.errors import InputError

MarginGradient = Literal["straight_through", "exact"]


class Margin(RunningState):
    """Replaces the target cosine by a curve f; knows neither class centers nor the loss.

    Subclasses define `curve` and, where autograd through it would be wrong or infinite, `slope`;
    `negative_curve` when other columns change too; `curve_inputs` when the curve needs more than
    the cosine; `advance` when buffers follow the batches.

    Args:
        scale: factor on all logits, > 0.
        margin_gradient: what the backward pass takes for df/dcos. "straight_through": 1, the margin
            is a constant to autograd (official X2-Softmax, insightface since 2022). "exact": the
            derivative of the curve.

    Raises:
        InputError: a parameter out of range.
    """

    name: ClassVar[str]
    changes_negatives: ClassVar[bool] = False
    needs_norm: ClassVar[bool] = False
    slope_is_one: ClassVar[bool] = False  # df/dcos is 1, so both gradients agree
    normalizes: ClassVar[bool] = True  # similarities are cosines, not inner products
    has_fixed_scale: ClassVar[bool] = True  # logits are `scale` times values of the curves
    falls_with_angle: ClassVar[bool] = False  # f falls strictly over [0, pi] at the defaults
    has_own_loss: ClassVar[bool] = False  # the paper's loss belongs to the margin: none to choose
    centers_per_class: int = 1  # similarities are to the nearest center of a class

    def __init__(self, scale: float = 64.0, margin_gradient: str = "straight_through") -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise InputError(f"scale must be positive, got {scale}")
        if margin_gradient not in ("straight_through", "exact", "detached_weights"):
            raise InputError(f"margin_gradient: {margin_gradient!r} is not a known one")
        self.scale = scale
        self.margin_gradient = margin_gradient

    def __init_subclass__(cls, **options: Any) -> None:
        """TypeError for a combination that the loss over chunks cannot compute."""
        super().__init_subclass__(**options)
        changed = {"negative_curve", "negative_slope"} & cls.__dict__.keys()
        if changed and "negative_kind" not in cls.__dict__:
            cls.negative_kind = Margin.negative_kind  # type: ignore[method-assign]
        if cls.changes_negatives and not cls.scales_plainly():
            raise TypeError(f"{cls.__name__} changes negatives and must not define scaled as well")

    @classmethod
    def scales_plainly(cls) -> bool:
        """Whether logits are `scale` times a similarity."""
        return cls.scaled is Margin.scaled

    @property
    def scales_by_a_constant(self) -> bool:
        """Whether logits are `scale` times a similarity, with a scale that never changes."""
        return self.has_fixed_scale and self.scales_plainly()

    # -- what a margin defines -------------------------------------------------------------------

    def curve(self, cosine: Tensor) -> Tensor:
        """f(cos): what replaces the target cosine, for cosines in [-1, 1].

        What `curve_inputs` returns arrives as further keyword arguments, which need defaults.
        """
        raise NotImplementedError(f"{type(self).__name__} must define curve(cosine)")

    def slope(self, cosine: Tensor, **inputs: Any) -> Tensor:
        """df/dcos, finite on [-1, 1]; by autograd unless the margin knows it in closed form."""
        if self.slope_is_one:
            return torch.ones_like(cosine)
        return derivative(lambda c: self.curve(c, **inputs), cosine)

    def negative_curve(self, cosine: Tensor, target: Tensor) -> Tensor:
        """g(cos): what replaces the cosines of other classes, elementwise.

        Only the cosine gets a gradient: learned parameters have no place here.

        Args:
            cosine: (R, C) cosines in [-1, 1].
            target: (R, 1) cosines of the targets.
        """
        raise NotImplementedError(f"{type(self).__name__} does not change negatives")

    def negative_kind(self, target: Tensor) -> NegativeKind | None:
        """The same curve in a form that the GPU kernels know; None: they compute without it.

        Args:
            target: (R,) cosines of the targets.
        """
        return None

    def negative_slope(self, cosine: Tensor, target: Tensor) -> Tensor:
        """dg/dcos, finite on [-1, 1]."""
        return derivative(lambda c: self.negative_curve(c, target), cosine)

    def curve_inputs(self, batch: LabeledBatch) -> dict[str, Any]:
        """Keyword arguments of `curve` besides the cosine, (R,) each; state advances here."""
        return {}

    def auxiliary_loss(self, batch: LabeledBatch) -> Tensor | float:
        """What is added to the mean loss, already averaged over the rows."""
        return 0.0

    def scaled(self, values: Tensor, embeddings: Tensor) -> Tensor:
        """(B, n) unscaled to scaled logits: a factor for each row, the same for all n."""
        return self.scale * values

    def default_loss(self, num_classes: int) -> LossConfig:
        """The loss of the paper, see `marginface.classifier.losses`."""
        return "cross_entropy"

    def check_loss(self, loss: ClassificationLoss) -> None:
        """InputError for a loss that this margin cannot go with."""
        problem = None
        if loss.needs_plain_negatives and self.changes_negatives:
            problem = "needs the plain cosines of other classes, which this head changes"
        elif loss.needs_fixed_scale and not self.has_fixed_scale:
            problem = "needs logits of a fixed scale, which this head does not have"
        elif loss.margin_is_constant and not (
            self.slope_is_one or self.margin_gradient == "straight_through"
        ):
            problem = "takes the margin as a constant: use margin_gradient=straight_through"
        if problem is not None:
            raise InputError(f"loss {loss.name!r} {problem}")

    def seed_noise(self) -> None:
        """Draw what the margin's own random numbers follow from; once, after the centers."""

    # -- what is expected before training --------------------------------------------------------

    def typical_curve_inputs(self, embedding_size: int, num_classes: int) -> dict[str, Any]:
        """`curve_inputs` of an embedding after batch normalization: its norm is sqrt(D)."""
        return {"norm": math.sqrt(embedding_size)} if self.needs_norm else {}

    def random_similarities(self, embedding_size: int) -> tuple[Tensor, Tensor]:
        """(n,) similarities between random vectors, and how probable each is; float64."""
        deviations = torch.linspace(-12, 12, 4801, dtype=torch.float64, device=self.device)
        cosine = (deviations / math.sqrt(embedding_size)).clamp(-1, 1)
        return cosine, self.cosine_log_density(deviations).softmax(0)

    def cosine_log_density(self, deviations: Tensor) -> Tensor:
        """Log density of random cosines in units of 1/sqrt(D), up to a constant."""
        return -(deviations**2) / 2

    # -- what follows from it --------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the state is; the CPU for a margin without state."""
        return next((buffer.device for buffer in self.buffers()), torch.device("cpu"))

    def target_logit(self, cosine: Tensor, **inputs: Any) -> Tensor:
        """f(cos) of any shape, unscaled, with the gradient that `margin_gradient` names."""
        at = cosine.detach().clamp(-1.0, 1.0)
        constants = {key: _detached(value) for key, value in inputs.items()}
        return self._with_gradient(
            self.curve(at, **(inputs if self.margin_gradient == "exact" else constants)),
            lambda: self.slope(at, **constants),
            cosine,
        )

    def target_and_slope(self, cosine: Tensor, **inputs: Any) -> tuple[Tensor, Tensor | None]:
        """The same and its derivative by the cosine (None: 1), both without a gradient."""
        at = cosine.clamp(-1.0, 1.0)
        straight = self.margin_gradient == "straight_through"
        return self.curve(at, **inputs), None if straight else self.slope(at, **inputs)

    def negatives(self, cosine: Tensor, target: Tensor) -> Tensor:
        """g(cos) of (R, C) cosines for (R, 1) target cosines, with its gradient."""
        at, own = cosine.detach().clamp(-1.0, 1.0), target.clamp(-1.0, 1.0)
        return self._with_gradient(
            self.negative_curve(at, own), lambda: self.negative_slope(at, own), cosine
        )

    def _with_gradient(self, value: Tensor, slope: Callable[[], Tensor], cosine: Tensor) -> Tensor:
        if not (cosine.requires_grad and torch.is_grad_enabled()):
            return value
        # The curve itself is not differentiated: arccos has poles.
        straight = self.margin_gradient == "straight_through"
        result: Tensor = _WithSlope.apply(value, cosine, None if straight else slope())
        return result


class _WithSlope(torch.autograd.Function):
    """A value with a given derivative by the cosine, besides those that it has."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, cosine: Tensor, slope: Tensor | None) -> Tensor:
        ctx.slope = slope  # None: 1
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = upstream
        return gradient, gradient if ctx.slope is None else gradient * ctx.slope, None


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
