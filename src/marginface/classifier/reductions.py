"""What a loss keeps of all other classes: one number per row, from chunks that are seen once.

A reduction is fed the (n, R) logits of chunk after chunk; `finish` then adds up the processes and
says whether it wants to see all chunks again. Sums are kept in float64.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.distributed import add_over_ranks, largest_over_ranks

NEVER = -1e30  # logit of a class that does not count; finite, so that 0 x NEVER is 0


class Reduction:
    """The sum over other classes that a loss is made of.

    `value` is (R,) and known once `finish` returned False; `weights` is its derivative.
    """

    value: Tensor

    def __init__(self, across_ranks: bool = False) -> None:
        self._add: Callable[[Tensor], Tensor] = add_over_ranks if across_ranks else _unchanged
        self._max: Callable[[Tensor], Tensor] = largest_over_ranks if across_ranks else _unchanged

    def begin(self, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        """Before the first chunk."""
        self.dtype = dtype
        self.zeros = torch.zeros(rows, dtype=torch.float64, device=device)

    def update(self, logits: Tensor, scratch: Tensor) -> None:
        """Take in a chunk; scratch is as large and may be overwritten."""
        raise NotImplementedError

    def finish(self) -> bool:
        """At the end of a pass over all chunks: whether another one is needed."""
        raise NotImplementedError

    def weights(self, logits: Tensor, out: Tensor) -> Tensor:
        """(n, R) d value / d logit, written to out."""
        raise NotImplementedError


class LogSumExp(Reduction):
    """value = log sum_j exp(z_j), by an online softmax.

    Args:
        bounded: whether float32 holds the exponentials without a running maximum.
    """

    def __init__(self, bounded: bool = False, across_ranks: bool = False) -> None:
        super().__init__(across_ranks)
        self.bounded = bounded

    def begin(self, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        super().begin(rows, dtype, device)
        self._sum = self.zeros
        self._top = torch.full((rows,), 0.0 if self.bounded else NEVER, dtype=dtype, device=device)

    def update(self, logits: Tensor, scratch: Tensor) -> None:
        if self.bounded:
            self._sum += torch.exp(logits, out=scratch).sum(0)
            return
        top = torch.maximum(self._top, logits.amax(0))
        self._sum *= (self._top.double() - top).exp()
        self._sum += torch.sub(logits, top, out=scratch).exp_().sum(0)
        self._top = top

    def finish(self) -> bool:
        top = self._max(self._top.clone())
        total = self._add(self._sum * (self._top.double() - top).exp())
        self.value = (top + total.log()).to(self.dtype)
        return False

    def weights(self, logits: Tensor, out: Tensor) -> Tensor:
        return torch.sub(logits, self.value, out=out).exp_()


class SoftplusSum(Reduction):
    """value = sum_j softplus(z_j - threshold), for binary losses."""

    def __init__(self, threshold: Tensor, across_ranks: bool = False) -> None:
        super().__init__(across_ranks)
        self.threshold = threshold.detach()

    def begin(self, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        super().begin(rows, dtype, device)
        self._sum = self.zeros

    def update(self, logits: Tensor, scratch: Tensor) -> None:
        self._sum += softplus(torch.sub(logits, self.threshold, out=scratch)).sum(0)

    def finish(self) -> bool:
        self.value = self._add(self._sum).to(self.dtype)
        return False

    def weights(self, logits: Tensor, out: Tensor) -> Tensor:
        return torch.sub(logits, self.threshold, out=out).sigmoid_()


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
        self._top = torch.full((rows,), NEVER, dtype=dtype, device=device)
        self._clear()

    def _clear(self) -> None:
        self._sums = torch.stack([self.zeros] * 4)

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


class Largest(Reduction):
    """value = max_j z_j, with `position` of the first one among the chunks of this process."""

    def begin(self, rows: int, dtype: torch.dtype, device: torch.device) -> None:
        super().begin(rows, dtype, device)
        self.value = torch.full((rows,), 2 * NEVER, dtype=dtype, device=device)
        self.position = torch.full((rows,), -1, dtype=torch.int64, device=device)
        self._seen = 0

    def update(self, logits: Tensor, scratch: Tensor) -> None:
        value, position = logits.max(0)
        better = value > self.value
        self.value = torch.where(better, value, self.value)
        self.position = torch.where(better, position + self._seen, self.position)
        self._seen += len(logits)

    def finish(self) -> bool:
        return False


def _unchanged(tensor: Tensor) -> Tensor:
    return tensor


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)); torch's takes x beyond 20, where they differ by 2e-9."""
    return F.softplus(x, threshold=40)
