"""The alpha-divergence (arXiv 2511.13621): like softmax, with exact zeros."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from marginface.classifier.losses.base import ClassificationLoss
from marginface.classifier.reduction import MASKED, Reduction

Alpha = Annotated[float, Field(gt=1, le=2)]


class AlphaDivergence(ClassificationLoss):
    """Fenchel-Young loss of the alpha-divergence: like softmax with exact zeros (2511.13621).

    p_j = q_j [1 + (alpha - 1)(z_j - tau)]_+^(1/(alpha - 1)) with tau such that the p_j add up to 1;
    z are the margin-free logits. The margin d = |target - margin-free target| is the target's
    prior, a constant to autograd: "exponential" q_y = exp(-d) is Q-Margin; "linear"
    q_y = [1 + (alpha - 1) d]^(-1/(alpha - 1)) gives any head a sparse variant (experimental).

    Args:
        alpha: in (1, 2]; towards 1 it becomes cross-entropy with the margin in the target.
        prior: how the margin enters.
    """

    name = "alpha_divergence"
    needs_plain_negatives = True
    margin_is_constant = True
    needs_margin_free = True

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
        self,
        margin_free: Tensor | None,
        with_margin: Tensor | None,
        *,
        dtype: torch.dtype,
        bounded: bool,
        across_ranks: bool,
    ) -> Reduction:
        assert margin_free is not None
        assert with_margin is not None
        prior_power = self._prior_power((with_margin - margin_free).abs())
        return AlphaSum(self.alpha, margin_free, prior_power, across_ranks)

    def combine(
        self, target: Tensor, others: Tensor, margin_free: Tensor | None, reduction: Any
    ) -> Tensor:
        assert margin_free is not None
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


class AlphaSum(Reduction):
    """value = sum_j p_j z_j of an alpha-divergence, with p from Newton's steps over all chunks.

    Args:
        alpha: in (1, 2].
        target: (R,) margin-free logits of the own classes.
        prior_power: (R,) q_y^(1 - alpha) of the own classes; other classes have q = 1.
    """

    def __init__(
        self, alpha: float, target: Tensor, prior_power: Tensor, across_ranks: bool = False
    ) -> None:
        super().__init__(across_ranks)
        self.alpha, self.power = alpha, 1 / (alpha - 1)
        self.target, self.prior_power = target.detach().double(), prior_power.detach().double()
        self.tau: Tensor | None = None
        self._passes = 0

    def begin(self, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        super().begin(rows, dtype, device)
        self._top = torch.full((rows,), MASKED, dtype=dtype, device=device)
        self._clear()

    def _clear(self) -> None:
        self._sums = torch.stack([self.zeros()] * 4)

    def update(self, logits: Tensor, scratch: Tensor) -> None:
        if self.tau is None:
            self._top = torch.maximum(self._top, logits.amax(0))
            return
        base = self._base(logits, scratch)
        # The mask is for alpha = 2, where the power is 0 and 0^0 is 1.
        slope = base ** (self.power - 1) * (base > 0)
        mass = base**self.power
        self._sums += torch.stack(
            [mass.sum(0), slope.sum(0), (mass * logits).sum(0), (mass * base).sum(0)]
        )

    def finish(self) -> bool:
        if self.tau is None:
            # At its own start each class alone brings the sum to 1; the largest is nearest to tau.
            own = self.target + (1 - self.prior_power) / (self.alpha - 1)
            self.tau = torch.maximum(self._max(self._top).double(), own)
            return True
        mass, slope, moment, entropy = self._add(self._sums)
        base = (1 + (self.alpha - 1) * (self.target - self.tau)).clamp(min=0)
        prior = self.prior_power ** (-self.power)
        own = prior * base**self.power
        total = mass + own
        step = (total - 1) / (slope + prior * base ** (self.power - 1) * (base > 0))
        self._passes += 1
        limit = 4 * torch.finfo(self.dtype).eps * (1 + self.tau.abs())
        if self._passes < 100 and (step.abs() > limit).any():
            self.tau = self.tau + step
            self._clear()
            return True
        self._mass = total.to(self.dtype)
        self.own_probability = (own / total).to(self.dtype)
        self.value = (moment / total).to(self.dtype)
        # Tsallis terms of p and of the one-hot label; what they share cancels.
        self.entropy = (self.prior_power - (entropy + own * base) / total).to(self.dtype)
        return False

    def weights(self, logits: Tensor, out: Tensor) -> Tensor:
        return self._base(logits, out).pow_(self.power).div_(self._mass)

    def _base(self, logits: Tensor, out: Tensor) -> Tensor:
        assert self.tau is not None
        tau = self.tau.to(self.dtype)
        return torch.sub(logits, tau, out=out).mul_(self.alpha - 1).add_(1).clamp_(min=0)
