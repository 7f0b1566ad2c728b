"""Options of the loss over all classes: precision, memory, sampling."""

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
        sampling: "sparse": only the sampled centers move, momentum and weight decay included, as in
            the paper. "dense": the others get a gradient of zero, so momentum and weight decay move
            all of them, as in insightface's PartialFC_V2.
        interclass_filtering_threshold: negatives with a higher cosine count as if it were 0,
            without a gradient: likely the same person twice (insightface's option; 0.4 there).
        kernel: what computes the loss: "torch" (plain torch), or "auto": GPU kernels where they run
            and have what the head needs. "triton" is the same, and an error on devices where no
            kernel runs. A resumed run may change it.
        matmul_precision: precision of the matrix products; sums, exponentials and target cosines
            stay float32. "float32" is what it says on a CPU, and in the kernels three products of
            float16 parts, which is as exact; "float16" rounds inputs of products to 11 bits (as
            TF32 does), "bfloat16" to 8 (and on the CPU their outputs). "auto" is "float32" unless a
            trainer with 16-bit autocast on a GPU makes it "float16".
        communication_precision: precision in which shards exchange embeddings and their gradients.
        chunk_mib: what the chunks of classes may take besides the gradient; None chooses.
        optimizer_in_backward: the backward pass steps each chunk of centers as soon as its gradient
            is there: the same numbers without the memory of the gradient, the largest thing besides
            weights and optimizer state. A step without any label leaves the centers where they are.
        separate_file_above_mib: class centers that take more are saved in files next to a
            checkpoint, not inside it.
    """

    sample_rate: float = 1.0
    sampling: Literal["sparse", "dense"] = "sparse"
    interclass_filtering_threshold: float | None = None
    kernel: Literal["auto", "torch", "triton"] = "auto"
    matmul_precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    communication_precision: Literal["float32", "bfloat16"] = "float32"
    chunk_mib: float | None = None
    optimizer_in_backward: bool = False
    separate_file_above_mib: float = 1024.0

    def __post_init__(self) -> None:
        if not 0 < self.sample_rate <= 1:
            raise InputError(
                f"classifier.sample_rate must be in (0, 1], got {self.sample_rate}: it is the "
                "share of the classes that a step compares with"
            )
        threshold = self.interclass_filtering_threshold
        if threshold is not None and not 0 < threshold < 1:
            raise InputError(
                f"classifier.interclass_filtering_threshold is a cosine in (0, 1), got {threshold}"
            )
        if self.optimizer_in_backward and self.samples and self.sampling == "dense":
            raise InputError(
                "classifier.optimizer_in_backward=true steps the sampled centers only, "
                "classifier.sampling=dense wants all of them moved: use sampling=sparse"
            )
        if self.chunk_mib is not None and not self.chunk_mib > 0:
            raise InputError(
                f"classifier.chunk_mib must be positive, got {self.chunk_mib}; null chooses"
            )
        if self.separate_file_above_mib < 0:
            raise InputError(
                "classifier.separate_file_above_mib must not be negative, "
                f"got {self.separate_file_above_mib}"
            )

    @property
    def samples(self) -> bool:
        """Whether a step sees a part of the classes only."""
        return self.sample_rate < 1

    @property
    def product_precision(self) -> str:
        """What "auto" means where nothing else is known."""
        return "float32" if self.matmul_precision == "auto" else self.matmul_precision

    @property
    def splits_operands(self) -> bool:
        """Whether the kernels multiply float16 numbers in two parts, for float32's precision."""
        return self.product_precision == "float32"

    def kernel_chunk_bytes(self, bytes_of_centers: int, split: bool) -> int:
        """Memory for one chunk of classes in the kernels: little beside the centers, few chunks.

        Args:
            split: whether gradient weights come in two parts.
        """
        if self.chunk_mib is not None:
            return int(self.chunk_mib * MIB)
        least = 92 if self.optimizer_in_backward else 144 if split else 72
        return max(least * MIB, bytes_of_centers // 16)

    def chunk_bytes(self, device: torch.device) -> int:
        """Memory for the matrices of one chunk of classes."""
        if self.chunk_mib is not None:
            return int(self.chunk_mib * MIB)
        # On a CPU a chunk should stay in its caches; a GPU wants few large kernels.
        return (1024 if device.type == "cuda" else 16) * MIB
