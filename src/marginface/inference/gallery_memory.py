"""What is enrolled, in memory, where it is searched; people can be added one after the other."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from marginface.inference.gallery_file import Rows
from marginface.utils.errors import InputError

_UNIT = 5e-3  # how far the length of a stored vector may be from 1
_ROOM = 256


class GalleryMemory:
    """People, their images' vectors, and their templates.

    Attributes:
        names: of the people.
        place: of a name in them.

    Args:
        rows: of the file.
        width: D.
        path: of the file, for messages.

    Raises:
        InputError: a vector that is not of unit length.
    """

    def __init__(self, rows: Rows, width: int, path: Path) -> None:
        self.names = list(rows.names)
        self.place = {name: n for n, name in enumerate(self.names)}
        self._count = len(rows.owner)
        self._owner = rows.owner.copy()
        self._vectors = torch.from_numpy(rows.vectors).float()  # the precision that is searched
        self._check(rows, path)
        self._width = width
        self._room: tuple[Tensor, Tensor] | None = None  # sums and templates, made when needed

    @property
    def vectors(self) -> Tensor:
        """(N, D) of all images."""
        return self._vectors[: self._count]

    @property
    def owner(self) -> NDArray[np.int64]:
        """(N,) place in `names` of whom each image shows."""
        return self._owner[: self._count]

    @property
    def templates(self) -> Tensor:
        """(S, D) the normalized mean of each person's unit vectors."""
        return self._sums_and_templates(len(self.names))[1][: len(self.names)]

    def add(self, subject: str, vectors: NDArray[np.float32]) -> None:
        """Add images of a person; as the file holds them."""
        stored = torch.from_numpy(vectors.astype(np.float16).astype(np.float32))
        if subject not in self.place:
            self.place[subject] = len(self.names)
            self.names.append(subject)
        place = self.place[subject]
        sums, templates = self._sums_and_templates(len(self.names))
        end = self._count + len(stored)
        if end > len(self._owner):
            more = max(end, 2 * len(self._owner), _ROOM) - len(self._owner)
            self._owner = np.concatenate([self._owner, np.zeros(more, np.int64)])
            self._vectors = torch.cat([self._vectors, torch.zeros(more, stored.shape[1])])
        self._owner[self._count : end] = place
        self._vectors[self._count : end] = stored
        self._count = end
        sums[place] += stored.sum(0)
        templates[place] = F.normalize(sums[place], dim=0)

    def _sums_and_templates(self, people: int) -> tuple[Tensor, Tensor]:
        """Tables of a row per person, as long as so many people need or longer."""
        if self._room is None:
            known = int(self.owner.max()) + 1 if self._count else 0
            sums = torch.zeros(known, self._width)
            sums.index_add_(0, torch.from_numpy(self.owner), self.vectors)
            self._room = sums, F.normalize(sums)
        if people > len(self._room[0]):
            rows = max(people, 2 * len(self._room[0]), _ROOM)
            more = torch.zeros(rows - len(self._room[0]), self._width)
            self._room = torch.cat([self._room[0], more]), torch.cat([self._room[1], more])
        return self._room

    def _check(self, rows: Rows, path: Path) -> None:
        off = (self._vectors.norm(dim=1) - 1).abs()
        if len(off) and not bool((off < _UNIT).all()):
            image = int(rows.images[int((~(off < _UNIT)).int().argmax())])
            raise InputError(
                f"{path} is damaged: the vector of image {image} is not of unit length; take a "
                "copy of the file, or enroll again"
            )
