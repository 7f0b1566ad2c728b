"""A cache of embeddings on disk, so that scoring again needs no network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marginface.utils.files import atomic_write
from marginface.utils.hashes import short_hash

_FORMAT = 1  # of what is computed; another number, other embeddings


class EmbeddingCache:
    """Embeddings by what they depend on: weights, images, and how these are embedded.

    Args:
        folder: for the files; None keeps nothing.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = None if folder is None else Path(folder)

    def get(self, key: dict[str, Any], compute: Callable[[], Tensor]) -> tuple[Tensor, bool]:
        """(N, D) embeddings, and whether they were there.

        Args:
            key: everything they depend on, as JSON.
            compute: called when they are not there.
        """
        if self.folder is None:
            return compute(), False
        words = json.dumps({"format": _FORMAT, **key}, sort_keys=True)
        name = short_hash(words, digits=32)
        path = self.folder / f"{name}.npy"
        if path.is_file():
            return torch.from_numpy(np.load(path)), True
        embeddings = compute()
        with atomic_write(path) as file:
            np.save(file, embeddings.numpy())
        return embeddings, False
