"""Where the own classes of the rows are in the matrices of chunks."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from marginface.classifier.center_chunks import CenterChunks, Chunk


class OwnPlaces:
    """Writes to the entries of (n, K, R) matrices of chunks that are of a row's own class.

    Args:
        centers: what is compared with.
        chunks: all of them.
        labels: (R,) own classes; one that is with another process is in no chunk.
    """

    def __init__(self, centers: CenterChunks, chunks: Sequence[Chunk], labels: Tensor) -> None:
        self._positions = centers.local_positions(labels)  # -1: not here
        self._rows = torch.arange(len(labels), device=labels.device)
        self._all_in_one = len(chunks) == 1 and centers.shard is None
        self._by_chunk: list[tuple[Tensor, Tensor]] | None = None
        if not self._all_in_one and labels.device.type == "cpu":
            self._by_chunk = self._sorted_into(chunks)

    def _sorted_into(self, chunks: Sequence[Chunk]) -> list[tuple[Tensor, Tensor]]:
        """For each chunk: (r,) classes in it that are a row's own, (r,) which rows these are."""
        positions, order = self._positions.sort()
        edges = torch.tensor([0, *(chunk.stop for chunk in chunks)])
        bounds = pairwise(torch.searchsorted(positions, edges).tolist())
        return [
            (positions[low:high] - chunk.start, order[low:high])
            for chunk, (low, high) in zip(chunks, bounds, strict=True)
        ]

    def put(self, chunk: Chunk, matrix: Tensor, values: Tensor | float) -> None:
        """Write the (R, K) values, or the same everywhere, to the entries that are in a chunk.

        Args:
            matrix: (n, K, R) for the n classes of the chunk, changed in place.
        """
        if self._all_in_one:
            matrix[self._positions, :, self._rows] = values
        elif self._by_chunk is not None:
            classes, rows = self._by_chunk[chunk.number]
            if len(rows):
                matrix[classes, :, rows] = values[rows] if isinstance(values, Tensor) else values
        else:  # how many are in a chunk would have to be waited for: all rows, some as they are
            here = (self._positions >= chunk.start) & (self._positions < chunk.stop)
            classes = (self._positions - chunk.start).clamp_(0, len(matrix) - 1)
            before = matrix[classes, :, self._rows]
            matrix[classes, :, self._rows] = torch.where(here[:, None], values, before)
