"""What all margin heads share: class centres, cosines, the two gradient modes and cross-entropy.

A head is only its curve. Tensor names: B batch, C classes, D embedding.
"""

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marginface.errors import InputError

MarginGradient = Literal["straight_through", "exact"]
IGNORED_LABEL = -1


class MarginHead(nn.Module):
    """Cosine softmax whose target cosine is replaced by a curve f.

    Subclasses define `curve` and, where autograd through it would be wrong or infinite, `slope`.

    Args:
        embedding_size: D, length of the embeddings.
        num_classes: C, number of identities, at least 2.
        scale: factor on all logits, > 0.
        margin_gradient: what the backward pass takes for df/dcos. "straight_through": 1, the margin
            is a constant to autograd (official X2-Softmax, insightface since 2022). "exact": the
            derivative of the curve.

    Raises:
        InputError: a size or parameter out of range.
    """

    name: ClassVar[str]
    weight: Tensor

    def __init__(
        self,
        embedding_size: int,
        num_classes: int,
        *,
        scale: float = 64.0,
        margin_gradient: MarginGradient = "straight_through",
    ) -> None:
        super().__init__()
        if embedding_size < 1:
            raise InputError(f"embedding_size must be at least 1, got {embedding_size}")
        if num_classes < 2:
            raise InputError(
                f"num_classes must be at least 2, got {num_classes}: "
                "a classifier needs a second identity to tell the first one from"
            )
        if not scale > 0:
            raise InputError(f"scale must be positive, got {scale}")
        if margin_gradient not in ("straight_through", "exact"):
            raise InputError(
                f"margin_gradient must be 'straight_through' or 'exact', got {margin_gradient!r}"
            )
        self.embedding_size = embedding_size
        self.num_classes = num_classes
        self.scale = scale
        self.margin_gradient = margin_gradient
        # N(0, 0.01) as in insightface and X2-Softmax: the length sets how fast directions turn.
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size).normal_(0, 0.01))

    def curve(self, cosine: Tensor) -> Tensor:
        """f(cos): what replaces the target cosine, for cosines in [-1, 1]."""
        raise NotImplementedError(f"{type(self).__name__} must define curve(cosine)")

    def slope(self, cosine: Tensor) -> Tensor:
        """df/dcos, finite on [-1, 1]; by autograd unless the head knows it in closed form."""
        with torch.enable_grad():
            inside = away_from_poles(cosine).requires_grad_()
            (slope,) = torch.autograd.grad(self.curve(inside).sum(), inside)
        return slope

    def target_logit(self, cosine: Tensor) -> Tensor:
        """f(cos) of any shape, unscaled, with the gradient that `margin_gradient` names."""
        at = cosine.detach().clamp(-1.0, 1.0)
        value = self.curve(at)
        # Adds zero to the value and the slope to the gradient, so nothing differentiates arccos.
        step = cosine - cosine.detach()
        return value + (
            step if self.margin_gradient == "straight_through" else self.slope(at) * step
        )

    def cosine(self, embeddings: Tensor) -> Tensor:
        """(B, D) raw embeddings to (B, C) cosines in float32 (float64 stays), outside autocast."""
        with torch.autocast(embeddings.device.type, enabled=False):
            dtype = torch.promote_types(embeddings.dtype, torch.float32)
            return F.linear(F.normalize(embeddings.to(dtype)), F.normalize(self.weight.to(dtype)))

    def logits(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """(B, C) scaled logits with the margin on the target; label -1 leaves a row without one."""
        cosine = self.cosine(embeddings)
        rows = (labels != IGNORED_LABEL).nonzero().squeeze(1)
        columns = labels[rows]
        target = self.target_logit(cosine[rows, columns])
        return self.scale * cosine.index_put((rows, columns), target)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over the rows whose label is not -1.

        Args:
            embeddings: (B, D) raw, i.e. not normalised; fp16 and bf16 are computed in float32.
            labels: (B,) int64 in [0, C), or -1 for a row that adds no loss.
        """
        return self.loss(self.logits(embeddings, labels), labels)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Log-sum-exp cross-entropy; no probability floor, so an X2 loss of 116 reads as 116."""
        with torch.autocast(logits.device.type, enabled=False):
            total = F.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="sum")
            # A batch of ignored rows only has loss 0, not 0/0.
            return total / (labels != IGNORED_LABEL).sum().clamp(min=1)

    def expected_first_loss(self) -> float:
        """The loss of random centres: cosines are then N(0, 1/D) and the target's curve is f(0).

        ln(C - 1) + s^2 / 2D is the log-sum-exp of the negatives (heads.md 1.5).
        """
        negatives = math.log(self.num_classes - 1) + self.scale**2 / (2 * self.embedding_size)
        target = self.scale * float(self.curve(torch.zeros((), dtype=torch.float64)))
        return _softplus(negatives - target)

    def extra_repr(self) -> str:
        return f"embedding_size={self.embedding_size}, num_classes={self.num_classes}"


def away_from_poles(cosine: Tensor) -> Tensor:
    """Cosines no nearer to +-1, where slopes may be infinite, than 1e-7 (float64: 1e-14)."""
    limit = 1.0 - (1e-14 if cosine.dtype == torch.float64 else 1e-7)
    return cosine.detach().clamp(-limit, limit)


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
