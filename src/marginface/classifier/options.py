"""How the loss over all classes is computed; what it is, is the head's business."""

from dataclasses import dataclass
from typing import Literal

import torch

from marginface.utils.errors import InputError

MIB = 2**20


@dataclass(frozen=True)
class ClassifierOptions:
    """Options of the classifier of a head.

    Args:
        sample_rate: share of the classes each step compares with, in (0, 1]: those of the batch and
            random others (Partial FC, arXiv 2203.15565); 1 is all of them.
        sampling: "sparse": only the sampled centres move, momentum and weight decay included, as in
            the paper. "dense": the others get a gradient of zero, so momentum and weight decay move
            all of them, as in insightface's PartialFC_V2.
        filter_above: other classes with a higher cosine count as if it were 0, without a gradient:
            likely the same person twice (inter-class filtering of insightface; 0.4 there).
        gemm: precision of the matrix products. "bfloat16" rounds their inputs (and on the CPU their
            outputs) to 8 bits; sums, exponentials and the cosines of the own classes stay float32.
        collectives: precision in which shards exchange embeddings and their gradients.
        memory_mib: what the chunks of classes may take beside the gradient; None chooses.
        optimizer_in_backward: the backward pass steps each chunk of centres as soon as its gradient
            is there: the same numbers without the memory of the gradient, the largest thing beside
            weights and optimizer state. A step without any label leaves the centres where they are.
        apart_above_mib: class centres that take more are saved beside a checkpoint, not inside.
    """

    sample_rate: float = 1.0
    sampling: Literal["sparse", "dense"] = "sparse"
    filter_above: float | None = None
    gemm: Literal["float32", "bfloat16"] = "float32"
    collectives: Literal["float32", "bfloat16"] = "float32"
    memory_mib: float | None = None
    optimizer_in_backward: bool = False
    apart_above_mib: float = 1024.0

    def __post_init__(self) -> None:
        if not 0 < self.sample_rate <= 1:
            raise InputError(
                f"classifier.sample_rate must be in (0, 1], got {self.sample_rate}: it is the "
                "share of the classes that a step compares with"
            )
        if self.filter_above is not None and not 0 < self.filter_above < 1:
            raise InputError(
                f"classifier.filter_above is a cosine in (0, 1), got {self.filter_above}"
            )
        if self.optimizer_in_backward and self.samples and self.sampling == "dense":
            raise InputError(
                "classifier.optimizer_in_backward=true steps the sampled centres only, "
                "classifier.sampling=dense wants all of them moved: use sampling=sparse"
            )
        if self.memory_mib is not None and not self.memory_mib > 0:
            raise InputError(
                f"classifier.memory_mib must be positive, got {self.memory_mib}; null chooses"
            )
        if self.apart_above_mib < 0:
            raise InputError(
                f"classifier.apart_above_mib must not be negative, got {self.apart_above_mib}"
            )

    @property
    def samples(self) -> bool:
        """Whether a step sees a part of the classes only."""
        return self.sample_rate < 1

    def chunk_bytes(self, device: torch.device) -> int:
        """Memory for the matrices of one chunk of classes."""
        if self.memory_mib is not None:
            return int(self.memory_mib * MIB)
        # On a CPU a chunk should stay in its caches; a GPU wants few large kernels.
        return (1024 if device.type == "cuda" else 16) * MIB
