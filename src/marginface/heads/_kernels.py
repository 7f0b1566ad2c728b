"""Which heads run in the GPU kernels, and what the kernels are told about them."""

from __future__ import annotations

import torch
from torch import Tensor

from marginface.classifier.centers import ClassCenters
from marginface.classifier.kernel_inputs import Logits
from marginface.classifier.kernels.availability import problem_of_device
from marginface.classifier.losses import BinaryCrossEntropy, ClassificationLoss, CrossEntropy
from marginface.classifier.negative_kind import PLAIN, NegativeKind, Slope
from marginface.heads._margin import Margin
from marginface.utils.errors import InputError


def reason_for_torch(
    margin: Margin,
    centers: ClassCenters,
    loss: ClassificationLoss,
    device: torch.device,
    dtype: torch.dtype,
) -> str | None:
    """Why a head computes its loss in plain torch; None: in the GPU kernels.

    Args:
        dtype: of the computations.

    Raises:
        InputError: kernel=triton on a device where no kernel runs.
    """
    options = centers.options
    if options.kernel == "torch":
        return "classifier.kernel=torch"
    problem = problem_of_device(device)
    if problem is not None:
        if options.kernel == "triton":
            raise InputError(f"classifier.kernel=triton: {problem}; use classifier.kernel=auto")
        return problem
    return _reason_of_head(margin, centers, loss, dtype)


def _reason_of_head(
    margin: Margin, centers: ClassCenters, loss: ClassificationLoss, dtype: torch.dtype
) -> str | None:
    if dtype != torch.float32 or centers.weight.dtype != torch.float32:
        return f"the kernels are in float32, not for {dtype} and {centers.weight.dtype} centers"
    if centers.options.product_precision == "bfloat16":
        return (
            "no kernel for classifier.matmul_precision=bfloat16; float16 is as fast and more exact"
        )
    if centers.centers_per_class > 1:
        return f"no kernel for {centers.centers_per_class} centers of a class"
    if type(loss).reduction not in (CrossEntropy.reduction, BinaryCrossEntropy.reduction):
        return f"no kernel for loss {loss.name}"
    changes = margin.changes_negatives or loss.changes_negatives
    kind = type(margin if margin.changes_negatives else loss).negative_kind
    if changes and kind in (Margin.negative_kind, ClassificationLoss.negative_kind):
        return f"no kernel for what {margin.name} does to other classes: it has no negative_kind"
    return None


def takes_embeddings(margin: Margin, loss: ClassificationLoss) -> bool:
    """Whether kernels may normalize embeddings themselves: no scale depends on a row."""
    plain = margin.changes_negatives or loss.changes_negatives or margin.scales_by_a_constant
    return margin.normalizes and plain


def kernel_logits(
    margin: Margin, loss: ClassificationLoss, target: Tensor, above: float | None
) -> Logits:
    """How cosines of other classes become logits.

    Args:
        target: (R,) cosines to the own classes.
        above: cosines that count as 0.
    """
    kind = PLAIN
    if margin.changes_negatives:
        through = margin.margin_gradient == "straight_through"
        kind = _known(margin.negative_kind(target.clamp(-1.0, 1.0)))
        kind = kind.with_slope(Slope.ONE) if through else kind
    elif loss.changes_negatives:
        kind = _known(loss.negative_kind())
    lengths = not takes_embeddings(margin, loss)
    return Logits(
        scale=1.0 if lengths else float(margin.scale),
        kind=kind,
        binary=isinstance(loss, BinaryCrossEntropy),
        row_lengths=lengths,
        center_lengths=not margin.normalizes,
        above=above,
    )


def _known(kind: NegativeKind | None) -> NegativeKind:
    assert kind is not None  # `reason_for_torch` looked
    return kind
