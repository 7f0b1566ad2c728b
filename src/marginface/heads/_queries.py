"""What a head compares with the class centers: the batch, in the form of each path.

Tensor names: R rows with a label, K centers of a class, D embedding.
"""

from dataclasses import dataclass

from torch import Tensor

from marginface.classifier.kernel_inputs import BatchRows


@dataclass(frozen=True)
class Compared:
    """A batch and its own centers."""

    target: Tensor  # (R,) similarity to the nearest own center, no gradient
    directions: Tensor | None = None  # (R, D) what is compared, where torch makes it
    own: Tensor | None = None  # (R, K) similarities to the own centers of this process
    rows: BatchRows | None = None  # or the batch for the GPU kernels
    in_kernels: bool = False


@dataclass(frozen=True)
class Queries:
    """What the centers are multiplied with: a product is `lengths` times a similarity."""

    vectors: Tensor  # (R, D)
    lengths: Tensor | float  # (R,), or that of all rows

    def times_length(self, similarity: Tensor) -> Tensor:
        """(R, ...) similarities to products, without a gradient."""
        if isinstance(self.lengths, float):
            return similarity if self.lengths == 1 else self.lengths * similarity
        lengths = self.lengths.detach()
        return lengths.view(-1, *[1] * (similarity.ndim - 1)) * similarity

    def over_length(self, product: Tensor) -> Tensor:
        """(R,) products to similarities."""
        if isinstance(self.lengths, float):
            return product if self.lengths == 1 else product / self.lengths
        return product / self.lengths.clamp_min(1e-12)
