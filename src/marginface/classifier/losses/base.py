"""Base class of losses over logits: in plain form, and for chunks of the classes."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marginface.classifier.negative_kind import NegativeKind
from marginface.classifier.reduction import Reduction


class ClassificationLoss(nn.Module):
    """What a loss has to define.

    Some losses do more than compare logits and do not go with every head: those for which
    `needs_plain_negatives` or `needs_fixed_scale` is set.
    """

    name: ClassVar[str]  # in configurations: loss=<name>
    needs_plain_negatives: ClassVar[bool] = False  # other logits must be scale x cosine
    needs_fixed_scale: ClassVar[bool] = False  # logits must be scale x a bounded value
    margin_is_constant: ClassVar[bool] = False  # to autograd, whatever the head sets
    changes_negatives: ClassVar[bool] = False  # like a head that does
    needs_margin_free: ClassVar[bool] = False  # target logits without the margin, too

    def __init_subclass__(cls, **options: Any) -> None:
        """A curve of one's own is not that of the class it is derived from."""
        super().__init_subclass__(**options)
        changed = {"negative_curve", "negative_slope"} & cls.__dict__.keys()
        if changed and "negative_kind" not in cls.__dict__:
            cls.negative_kind = ClassificationLoss.negative_kind  # type: ignore[method-assign]

    def forward(self, logits: Tensor, labels: Tensor, margin_free: Tensor) -> Tensor:
        """(R,) losses the plain way.

        Args:
            logits: (R, C) scaled, with the margin on the target.
            labels: (R,) in [0, C).
            margin_free: (R,) target logits without the margin.
        """
        raise NotImplementedError

    def reduction(
        self,
        margin_free: Tensor | None,
        with_margin: Tensor | None,
        *,
        dtype: torch.dtype,
        bounded: bool,
        across_ranks: bool,
    ) -> Reduction:
        """What the loss needs of all other classes, for logits that come in chunks.

        Args:
            margin_free, with_margin: (R,) target logits, without gradients, for a loss that
                `needs_margin_free`.
            dtype: of the logits.
            bounded: whether float32 holds exponentials of the other logits.
            across_ranks: whether the classes are sharded over processes.
        """
        raise NotImplementedError

    def combine(
        self, target: Tensor, others: Tensor, margin_free: Tensor | None, reduction: Any
    ) -> Tensor:
        """(R,) losses, the same as `forward`, from what the reduction found.

        Args:
            target, margin_free: (R,) target logits with the margin and, for a loss that
                `needs_margin_free`, without.
            others: (R,) value of the reduction.
        """
        raise NotImplementedError

    def negative_curve(self, cosine: Tensor) -> Tensor:
        """What replaces the cosines of other classes, elementwise."""
        raise NotImplementedError

    def negative_slope(self, cosine: Tensor) -> Tensor:
        """Its derivative, or what is to pass for it."""
        raise NotImplementedError

    def negative_kind(self) -> NegativeKind | None:
        """The same curve in a form that the GPU kernels know; None: they compute without it."""
        return None

    def learned_threshold(self, dtype: torch.dtype) -> Tensor | None:
        """() what is subtracted from all logits and learned, if there is such a thing."""
        return None

    def expected(self, target: Tensor, logits: Tensor, counts: Tensor) -> Tensor:
        """The loss of one target logit against (n,) logits, each standing for counts classes."""
        raise NotImplementedError


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)); torch's takes x beyond 20, where they differ by 2e-9."""
    return F.softplus(x, threshold=40)
