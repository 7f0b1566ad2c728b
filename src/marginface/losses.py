"""Losses over logits: cross-entropy, binary cross-entropy, circle, alpha-divergence.

A head makes logits, a loss turns them into a number; any curve meets any loss it makes sense with.
Every loss takes (R, C) scaled logits with the margin on the target, (R,) labels in [0, C) and (R,)
margin-free target logits, and returns (R,) losses.
"""

import inspect
import math
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from marginface.classifier.reductions import AlphaSum, LogSumExp, Reduction, SoftplusSum, softplus
from marginface.errors import InputError, unknown_name
from marginface.parameters import Positive, check_parameters

LossSpec = str | dict[str, Any]
Alpha = Annotated[float, Field(gt=1, le=2)]


class LossOverLogits(nn.Module):
    """What a loss has to define.

    Some losses do more than compare logits and do not go with every head: those for which
    `needs_plain_negatives` or `needs_fixed_scale` is set.
    """

    needs_plain_negatives: ClassVar[bool] = False  # other logits must be scale x cosine
    needs_fixed_scale: ClassVar[bool] = False  # logits must be scale x a bounded value
    margin_is_constant: ClassVar[bool] = False  # to autograd, whatever the head says

    changes_negatives: ClassVar[bool] = False  # like a head that does

    def forward(self, logits: Tensor, labels: Tensor, margin_free: Tensor) -> Tensor:
        """(R,) losses of (R, C) logits."""
        raise NotImplementedError

    def reduction(
        self, margin_free: Tensor, with_margin: Tensor, *, bounded: bool, across_ranks: bool
    ) -> Reduction:
        """What the loss needs of all other classes, for logits that come in chunks.

        Args:
            margin_free, with_margin: (R,) target logits, without gradients.
            bounded: whether float32 holds exponentials of the other logits.
            across_ranks: whether the classes are spread over processes.
        """
        return LogSumExp(bounded, across_ranks)

    def combine(
        self, target: Tensor, others: Tensor, margin_free: Tensor, reduction: Any
    ) -> Tensor:
        """(R,) losses, the same as `forward`, from what the reduction found.

        Args:
            target, margin_free: (R,) target logits with the margin and without.
            others: (R,) value of the reduction.
        """
        raise NotImplementedError

    def negative_curve(self, cosine: Tensor) -> Tensor:
        """What replaces the cosines of other classes, elementwise."""
        raise NotImplementedError

    def negative_slope(self, cosine: Tensor) -> Tensor:
        """Its derivative, or what is to pass for it."""
        raise NotImplementedError

    def learned_threshold(self, dtype: torch.dtype) -> Tensor | None:
        """() what is subtracted from all logits and learned, if there is such a thing."""
        return None

    def expected(self, target: Tensor, logits: Tensor, counts: Tensor) -> Tensor:
        """The loss of one target logit against (n,) logits, each standing for counts classes."""
        raise NotImplementedError


class CrossEntropy(LossOverLogits):
    """Softmax cross-entropy by log-sum-exp; no probability floor, so a loss of 116 reads as 116."""

    def forward(self, logits: Tensor, labels: Tensor, margin_free: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, reduction="none")

    def combine(
        self, target: Tensor, others: Tensor, margin_free: Tensor, reduction: Any
    ) -> Tensor:
        return softplus(others - target)

    def expected(self, target: Tensor, logits: Tensor, counts: Tensor) -> Tensor:
        return softplus((logits + counts.log()).logsumexp(0) - target)


class BinaryCrossEntropy(LossOverLogits):
    """C independent decisions against one learned threshold: UCE of UniFace, and SphereFace2.

    Args:
        threshold: first value of the threshold b, in units of the logits (UniFace: ln(10 C)).
        positive_weight: factor on softplus(b - target).
        negative_weight: factor on each softplus(negative - b).
        factor: factor on all of it.
    """

    def __init__(
        self,
        threshold: float,
        positive_weight: Positive = 1.0,
        negative_weight: Positive = 1.0,
        factor: Positive = 1.0,
    ) -> None:
        super().__init__()
        self.first_threshold = threshold
        # What is learned is the way from there, so the start is exact in every precision.
        self.shift = nn.Parameter(torch.zeros(()))
        self.positive_weight, self.negative_weight = positive_weight, negative_weight
        self.factor = factor

    @property
    def threshold(self) -> float:
        """b as it is now; b / scale is a cosine to verify at."""
        return self.first_threshold + float(self.shift.detach())

    def forward(self, logits: Tensor, labels: Tensor, margin_free: Tensor) -> Tensor:
        columns = labels[:, None]
        threshold = self.learned_threshold(logits.dtype)
        positive = softplus(threshold - logits.gather(1, columns).squeeze(1))
        negatives = softplus(logits.scatter(1, columns, -math.inf) - threshold).sum(1)
        return self._weighted(positive, negatives)

    def learned_threshold(self, dtype: torch.dtype) -> Tensor:
        return self.first_threshold + self.shift.to(dtype)

    def reduction(
        self, margin_free: Tensor, with_margin: Tensor, *, bounded: bool, across_ranks: bool
    ) -> Reduction:
        return SoftplusSum(self.learned_threshold(margin_free.dtype), across_ranks)

    def combine(
        self, target: Tensor, others: Tensor, margin_free: Tensor, reduction: Any
    ) -> Tensor:
        threshold = self.learned_threshold(target.dtype)
        return self._weighted(softplus(threshold - target), others)

    def expected(self, target: Tensor, logits: Tensor, counts: Tensor) -> Tensor:
        threshold = torch.full_like(target, self.first_threshold)
        negatives = (counts * softplus(logits - threshold)).sum()
        return self._weighted(softplus(threshold - target), negatives)

    def _weighted(self, positive: Tensor, negatives: Tensor) -> Tensor:
        return self.factor * (self.positive_weight * positive + self.negative_weight * negatives)


def balanced_bias(odds: float, positive: float, negative: float) -> float:
    """The bias b that positives pull up as hard as negatives push down (SphereFace2).

    Solves odds sigmoid(-(positive + b)) = sigmoid(negative + b), a quadratic in exp(b).

    Args:
        odds: weight of the positive logit against that of all negatives together.
        positive: logit of the target.
        negative: logit of each negative.
    """
    root = math.hypot(1 - odds, 2 * math.sqrt(odds) * math.exp((positive - negative) / 2))
    if odds > 1:  # of the two forms of the root the one that adds what it can
        return math.log((odds - 1 + root) / 2) - positive
    return math.log(2 * odds / (1 - odds + root)) - negative


class AlphaDivergence(LossOverLogits):
    """Fenchel-Young loss of the alpha-divergence: like softmax with exact zeros (2511.13621).

    p_j = q_j [1 + (alpha - 1)(z_j - tau)]_+^(1/(alpha - 1)) with tau such that the p_j add up to 1;
    z are the margin-free logits. The margin d = |target - margin-free target| is the target's
    prior, a constant to autograd: "exponential" q_y = exp(-d) is Q-Margin; "linear"
    q_y = [1 + (alpha - 1) d]^(-1/(alpha - 1)) gives any head a sparse variant (experimental).

    Args:
        alpha: in (1, 2]; towards 1 it becomes cross-entropy with the margin in the target.
        prior: how the margin enters.
    """

    needs_plain_negatives = True
    margin_is_constant = True

    def __init__(
        self, alpha: Alpha = 1.25, prior: Literal["linear", "exponential"] = "linear"
    ) -> None:
        super().__init__()
        self.alpha, self.prior = alpha, prior

    def forward(self, logits: Tensor, labels: Tensor, margin_free: Tensor) -> Tensor:
        columns = labels[:, None]
        margin = (logits.gather(1, columns).squeeze(1) - margin_free).detach().abs()
        z = logits.scatter(1, columns, margin_free[:, None])
        prior = torch.ones_like(z).scatter_(1, columns, self.prior_of(margin)[:, None])
        return self._divergence(z, prior, margin_free, margin)

    def expected(self, target: Tensor, logits: Tensor, counts: Tensor) -> Tensor:
        margin = target.abs()  # of a target whose cosine is 0
        z = torch.cat([torch.zeros_like(target)[None], logits])[None]
        prior = torch.cat([self.prior_of(margin)[None], counts])[None]
        return self._divergence(z, prior, z[:, 0], margin[None])[0]

    def reduction(
        self, margin_free: Tensor, with_margin: Tensor, *, bounded: bool, across_ranks: bool
    ) -> Reduction:
        prior_power = self._prior_power((with_margin - margin_free).abs())
        return AlphaSum(self.alpha, margin_free, prior_power, across_ranks)

    def combine(
        self, target: Tensor, others: Tensor, margin_free: Tensor, reduction: Any
    ) -> Tensor:
        # p is where the loss is stationary, so its own gradient adds nothing: dL/dz = p - onehot.
        own = reduction.own_probability * margin_free
        return others + own - margin_free + reduction.entropy / (self.alpha * (self.alpha - 1))

    def prior_of(self, margin: Tensor) -> Tensor:
        """q_y for a margin in units of the logits."""
        return self._prior_power(margin) ** (-1 / (self.alpha - 1))

    def _prior_power(self, margin: Tensor) -> Tensor:
        """q_y^(1 - alpha)."""
        scaled = (self.alpha - 1) * margin
        return scaled.exp() if self.prior == "exponential" else 1 + scaled

    def _divergence(self, z: Tensor, prior: Tensor, target: Tensor, margin: Tensor) -> Tensor:
        with torch.no_grad():
            base = alpha_base(z, prior, self.alpha)
            p = prior * base ** (1 / (self.alpha - 1))
            p = p / p.sum(1, keepdim=True)
            # Tsallis terms of p and of the one-hot label; what they share cancels.
            entropy = self._prior_power(margin) - (p * base).sum(1)
        # p is where the loss is stationary, so its own gradient adds nothing: dL/dz = p - onehot.
        return (p * z).sum(1) - target + entropy / (self.alpha * (self.alpha - 1))


def alpha_base(z: Tensor, prior: Tensor, alpha: float) -> Tensor:
    """(R, C) values u = [1 + (alpha - 1)(z - tau)]_+ for which sum_j q_j u_j^(1/(alpha-1)) is 1.

    The sum is convex and falls with tau, so Newton's steps from the left never overshoot.
    """
    power = 1 / (alpha - 1)
    # At its own start each class alone brings the sum to 1; the largest start is nearest to tau.
    start = z + (1 - prior ** (-1 / power)) / (alpha - 1)
    tau = start.amax(1, keepdim=True)
    for _ in range(100):
        base = (1 + (alpha - 1) * (z - tau)).clamp(min=0)
        # The mask is for alpha = 2, where the power is 0 and 0^0 is 1.
        slope = (prior * base ** (power - 1) * (base > 0)).sum(1, keepdim=True)
        step = ((prior * base**power).sum(1, keepdim=True) - 1) / slope
        tau = tau + step
        if (step.abs() <= 4 * torch.finfo(z.dtype).eps * (1 + tau.abs())).all():
            break
    return (1 + (alpha - 1) * (z - tau)).clamp(min=0)


class Circle(CrossEntropy):
    """Cross-entropy of logits weighted by their distance from an optimum (2002.10857).

    Args:
        scale: gamma, the scale of the logits that come in and of the weighted ones.
        margin: m; the optima are 1 + m (target) and -m, the decision margins 1 - m and m.
    """

    needs_plain_negatives = True
    needs_fixed_scale = True
    changes_negatives = True

    def __init__(self, scale: float, margin: float = 0.25) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin

    def forward(self, logits: Tensor, labels: Tensor, margin_free: Tensor) -> Tensor:
        cosine, columns = logits / self.scale, labels[:, None]
        weighted = circle_weight(cosine, self.margin).detach() * (cosine - self.margin)
        target = self._target(cosine.gather(1, columns))
        return super().forward(
            self.scale * weighted.scatter(1, columns, target), labels, margin_free
        )

    def negative_curve(self, cosine: Tensor) -> Tensor:
        return circle_weight(cosine, self.margin) * (cosine - self.margin)

    def negative_slope(self, cosine: Tensor) -> Tensor:  # the weight is a constant
        return circle_weight(cosine, self.margin)

    def combine(
        self, target: Tensor, others: Tensor, margin_free: Tensor, reduction: Any
    ) -> Tensor:
        weighted = self.scale * self._target(target / self.scale)
        return super().combine(weighted, others, margin_free, reduction)

    def _target(self, cosine: Tensor) -> Tensor:
        weight = circle_weight(1 - cosine, self.margin).detach()
        return weight * (cosine - 1 + self.margin)

    def expected(self, target: Tensor, logits: Tensor, counts: Tensor) -> Tensor:
        cosine, at = logits / self.scale, target / self.scale
        positive, negatives = self._target(at), self.negative_curve(cosine)
        return super().expected(self.scale * positive, self.scale * negatives, counts)


def circle_weight(distance: Tensor, margin: float) -> Tensor:
    """[distance + m]_+: distance is the cosine of a negative, 1 - cosine of the target."""
    return (distance + margin).clamp(min=0)


_LOSSES: dict[str, type[LossOverLogits]] = {
    "cross_entropy": CrossEntropy,
    "bce": BinaryCrossEntropy,
    "circle": Circle,
    "alpha_divergence": AlphaDivergence,
}


def create_loss(spec: LossSpec, *, num_classes: int, scale: float) -> LossOverLogits:
    """The loss that a name, or a mapping with `name` and parameters, describes.

    "bce" without a threshold starts at UniFace's ln(10 C).

    Raises:
        InputError: an unknown name or parameter, a parameter out of range.
    """
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = given.pop("name", None)
    if name not in _LOSSES:
        raise InputError(unknown_name("loss", str(name), _LOSSES))
    provided = {"threshold": math.log(10 * num_classes)} if name == "bce" else {}
    if name == "circle":
        provided = {"scale": scale}
    known = [key for key in inspect.signature(_LOSSES[name]).parameters if key != "scale"]
    check_parameters(f"loss {name!r}", _LOSSES[name], given, known)
    return _LOSSES[name](**(provided | given))
