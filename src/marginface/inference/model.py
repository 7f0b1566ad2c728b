"""A network to use: photographs and aligned faces to embeddings, and whether two are one person."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from marginface.data.alignment.detectors import LandmarkFile
from marginface.data.alignment.faces import FaceFinder, Which
from marginface.data.preprocessing import Color
from marginface.inference.description import Description
from marginface.inference.embedder import Embedder
from marginface.inference.photo_options import PhotoOptions
from marginface.inference.photographs import (
    Faces,
    Photo,
    embed_photos,
    embed_pixels,
    join_faces_of,
    one_or_several,
)
from marginface.inference.pixels import check_aligned
from marginface.inference.verification import Verification
from marginface.metrics.thresholds import Threshold, lowest_supported, threshold_for
from marginface.metrics.verification import rate_name
from marginface.utils.errors import InputError

BATCH = 64


class Model:
    """A network with everything its file says of it. Made by `marginface.load`.

    Attributes:
        description: what the file says.
        image_size: S, side of the aligned faces it takes, in pixels.
        color: channel order it was trained in; arrays are RGB whatever it is.
        flip: whether the embedding of the mirror image is added.
        digest: SHA-256 of the weights, which other files with them share.
        photos: how faces are found in photographs.
    """

    def __init__(
        self, description: Description, embedder: Embedder, digest: str, photos: PhotoOptions
    ) -> None:
        self.description, self.digest, self.photos = description, digest, photos
        self._embedder = embedder
        self._finders: dict[tuple[PhotoOptions, Which], FaceFinder] = {}
        self._width: int | None = None

    @property
    def image_size(self) -> int:
        return self.description.input.size

    @property
    def color(self) -> Color:
        return self.description.input.color

    @property
    def flip(self) -> bool:
        return self.description.flip

    @property
    def embedding_size(self) -> int:
        """D."""
        if self._width is None:
            black = np.zeros((1, self.image_size, self.image_size, 3), np.uint8)
            self._width = self._embedder(_channels_first(black)).shape[1]
        return self._width

    def embed_aligned(self, images: Any, batch_size: int = BATCH) -> NDArray[np.float32]:
        """Aligned faces, uint8 RGB (N, S, S, 3), to float32 (N, D) of unit length.

        Raises:
            InputError: other arrays, see `pixels.check_aligned`.
        """
        checked = check_aligned(images, self.image_size)
        return np.concatenate([part for part, _ in self._parts(checked, batch_size)])

    def norms_aligned(
        self, images: Any, batch_size: int = BATCH
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """`embed_aligned`, and the lengths embeddings had; NaN where a graph hides them."""
        checked = check_aligned(images, self.image_size)
        parts = list(self._parts(checked, batch_size))
        units, norms = zip(*parts, strict=True)
        return np.concatenate(units), np.concatenate(norms)

    def embed(
        self,
        photos: Photo | Iterable[Photo],
        *,
        faulty: Literal["stop", "keep"] = "stop",
        batch_size: int = BATCH,
        on_photo: Callable[[int], None] = lambda done: None,
        usual: Which = "all",
        **options: Any,
    ) -> Faces:
        """Faces found in photographs, aligned and embedded; a row each.

        Args:
            photos: paths, or uint8 RGB arrays (H, W, 3); or one of them.
            faulty: a photograph without a usable face is an error, or keeps a row that says why.
            batch_size: faces that are embedded at once.
            on_photo: called with the number of photographs done.
            usual: which face of several, unless options say so: all of them, a row each.
            options: other `PhotoOptions` than the model's, for this call.

        Raises:
            InputError: no photographs, an array that is no photograph, or a faulty photograph.
        """
        several = one_or_several(photos)
        names = [str(photo) for photo in several if isinstance(photo, str | Path)]
        found = list(
            embed_photos(
                several,
                self.finder(names, usual, **options),
                self._embedder,
                batch_size=batch_size,
                on_photo=on_photo,
            )
        )
        if not found:
            raise InputError("no photographs were given")
        faces = join_faces_of(found, self.embedding_size)
        if faulty == "stop" and not faces.found.all():
            row = int((~faces.found).argmax())
            raise InputError(f"{faces.photo[row]}: {faces.status[row]}")
        return faces

    def verify(
        self,
        first: Photo,
        second: Photo,
        *,
        fmr: float = 1e-3,
        threshold: float | None = None,
        **options: Any,
    ) -> Verification:
        """Whether two photographs show one person.

        Args:
            first: path, or uint8 RGB array (H, W, 3).
            second: likewise.
            fmr: false match rate in (0, 1) whose threshold is taken.
            threshold: a cosine to take instead.
            options: other `PhotoOptions` than the model's.

        Raises:
            InputError: no face, or several; a model without thresholds.
        """
        limit = self.limit(fmr, threshold)
        faces = self.embed([first, second], usual="only", **options)
        one, other = (faces.embedding[faces.number == number][0] for number in range(2))
        return replace(limit, same=(c := float(one @ other)) >= limit.threshold, cosine=c)

    def limit(self, fmr: float = 1e-3, threshold: float | None = None) -> Verification:
        """A `Verification` without faces: the threshold and what is known of it."""
        if threshold is not None:
            if not -1 <= threshold <= 1:
                raise InputError(f"a threshold is a cosine, -1 to 1, got {threshold}")
            return Verification(False, float("nan"), threshold)
        found = self.threshold(fmr)
        return Verification(
            False, float("nan"), found.cosine, fmr, found.fmr_low, found.fmr_high, found.set,
            found.false_matches, found.impostors, self.caution(found),
        )  # fmt: skip

    def threshold(self, fmr: float = 1e-3) -> Threshold:
        """The threshold for a false match rate of two photographs.

        Raises:
            InputError: no thresholds, or none of embeddings like these; with what to do.
        """
        if not 0 < fmr < 1:
            raise InputError(f"a false match rate is between 0 and 1, got {fmr}; 1e-3 is usual")
        int8 = self.description.precision == "int8"
        try:
            return threshold_for(self.description.thresholds, fmr, flip=self.flip, int8=int8)
        except InputError as error:
            raise InputError(
                f"{error}. Evaluate the model (python evaluate.py checkpoint=... or marginface "
                "evaluate), give the folder with --evaluation (evaluation= in Python); or a cosine "
                "of your own with --threshold"
            ) from error

    def caution(self, found: Threshold) -> str | None:
        """A warning for a rate that too few impostor pairs tell."""
        if found.supported:
            return None
        lowest = lowest_supported(self.description.thresholds, found)
        least = "none" if lowest is None else f"{rate_name(lowest)} and above"
        return (
            f"{found.set} has {found.impostors:,} impostor pairs, too few to know FMR "
            f"{rate_name(found.fmr)} (rule of 30); supported there: {least}"
        )

    def finder(
        self, photos: Sequence[str] = (), usual: Which = "all", **options: Any
    ) -> FaceFinder:
        """What finds faces for this model.

        Args:
            photos: paths, for a landmark file.
            usual: which face of several, unless options say so.
            options: other `PhotoOptions` than the model's.
        """
        wanted = replace(self.photos, **checked_options(options))
        if wanted.landmarks is not None:
            return wanted.finder(self.description.input, photos, usual)
        key = wanted, usual
        if key not in self._finders:
            self._finders[key] = wanted.finder(self.description.input, usual=usual)
        return self._finders[key]

    @property
    def execution(self) -> str:
        """What computes the network, and how precisely; last digits depend on it."""
        return f"{type(self._embedder.networks[0]).__name__}, {self._embedder.precision}"

    @contextmanager
    def landmarks_of(self, photos: Sequence[str]) -> Iterator[None]:
        """Read the landmark file of the options, if there is one, for several calls within.

        Whose points a line has can depend on which other photographs there are.
        """
        options = self.photos
        if isinstance(options.landmarks, Path):
            read = LandmarkFile(options.landmarks, Path(), photos=list(photos))
            self.photos = replace(options, landmarks=read)
        try:
            yield
        finally:
            self.photos = options

    def embed_stream(self, photos: Iterable[Photo], finder: FaceFinder, **more: Any) -> Any:
        """`embed_photos` with this network."""
        return embed_photos(photos, finder, self._embedder, **more)

    def _parts(self, images: NDArray[np.uint8], batch_size: int) -> Any:
        if batch_size < 1:
            raise InputError(f"the batch must be 1 face or more, got {batch_size}")
        for at in range(0, len(images), batch_size):
            yield embed_pixels(images[at : at + batch_size], self._embedder)


def checked_options(options: dict[str, Any]) -> dict[str, Any]:
    """Fields of `PhotoOptions`; InputError for a name that is none."""
    unknown = sorted(options.keys() - PhotoOptions.__dataclass_fields__.keys())
    if unknown:
        known = ", ".join(PhotoOptions.__dataclass_fields__)
        raise InputError(f"unknown option {unknown[0]!r} of photographs. Known: {known}")
    for name in ("yunet", "landmarks"):
        if isinstance(options.get(name), str):
            options[name] = Path(options[name])
    return options


def _channels_first(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)
