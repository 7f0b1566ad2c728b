"""Verification sets: images, and pairs of them that show the same person or not."""

import copy
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from marginface.data.dataset import FaceDataset
from marginface.data.image_dataset import ImageDataset
from marginface.data.image_files import found_below, read_image_file
from marginface.data.images import ImageRules, Pixels, resize_and_center_crop
from marginface.data.pairs.drawing import draw_genuine, draw_impostor, possible_pairs
from marginface.data.pairs.files import PAIR_LIST_SUFFIXES, read_pair_file, read_pair_list
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.hashes import short_hash

_SUFFIXES = (".bin", *PAIR_LIST_SUFFIXES)
_ROOT_SETTINGS = "data.pairs_root (in evaluations benchmark.<name>.root)"


class PairFile(ImageDataset):
    """Pairs in a file: pair i is images 2i and 2i + 1. Made by `load_pairs`.

    Images of another size are scaled so that the short side fits and cut to the center, as in
    insightface's reader. A faulty image stops the run, because leaving its pair out changes the
    protocol, unless `faulty` is "skip".

    Attributes:
        same: (N,) whether a pair shows one person.
        pairs: (N, 2) image indices of each pair.
        images: uint8 (2N, 3, S, S), decoded on first use.
    """

    def __init__(
        self,
        path: Path,
        images: list[bytes] | list[str],
        same: NDArray[np.bool_],
        *,
        root: Path | None = None,
        image_size: int = 112,
        faulty: Literal["stop", "skip"] = "stop",
    ) -> None:
        self.path, self.root = path, root
        self.encoded = images
        self.same = same
        self.pairs = np.arange(len(images)).reshape(-1, 2)
        self._any_size = ImageRules(size=None, alpha="drop")
        super().__init__(len(images), image_size=image_size, where=str(path), faulty=faulty)

    def is_readable(self, index: int) -> bool:
        """Whether an image can be decoded."""
        try:
            self.pixels(index)
        except InputError:
            return False
        return True

    def take(self, chosen: NDArray[np.bool_]) -> "PairFile":
        """Some of the pairs; images keep their numbers."""
        part = copy.copy(self)
        part.same, part.pairs = self.same[chosen], self.pairs[chosen]
        return part

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem if self.path.suffix in _SUFFIXES else self.path.name

    def resize_to(self, image_size: int) -> None:
        """Give images of another size from now on."""
        self.image_size = image_size
        self.__dict__.pop("images", None)

    @cached_property
    def images(self) -> Tensor:
        return self.__getitems__(list(range(len(self))))[0]

    def image_bytes(self, index: int) -> bytes:
        image = self.encoded[index]
        if isinstance(image, bytes):
            return image
        assert self.root is not None
        return read_image_file(self.root, image)

    def fill(self, index: int, out: Pixels) -> None:
        try:
            out[:] = resize_and_center_crop(
                self._any_size.decode(self.image_bytes(index)), self.image_size
            )
        except InputError as error:
            raise InputError(f"{self.describe(index)}: {error}") from error

    def describe(self, index: int) -> str:
        image = self.encoded[index]
        return super().describe(index) if isinstance(image, bytes) else f"{self.root}/{image}"

    def fingerprint(self) -> dict[str, Any]:
        sizes = np.asarray([len(image) for image in self.encoded], np.int64)
        names = "\n".join(image for image in self.encoded if isinstance(image, str))
        content = self.same.tobytes() + sizes.tobytes() + names.encode(errors="surrogateescape")
        return {
            "kind": "PairFile",
            "pairs": len(self.same),
            "content_sha256": short_hash(content),
        }


class SampledPairs(ImageDataset):
    """Genuine and impostor pairs, half each, drawn from the images of another dataset.

    Args:
        source: faces of at least two identities, one of them with two images.
        num_pairs: at most so many, rounded down to a multiple of 20 so that ten folds hold equal
            halves; fewer where there are no more different ones.
        seed: decides the pairs.
    """

    name = "heldout"

    def __init__(self, source: FaceDataset, num_pairs: int, seed: int) -> None:
        self.source = source
        self.pairs, self.same = sample_pairs(source.labels, num_pairs, seed)
        super().__init__(len(source), image_size=source.image_size, where=source.where)

    def image_bytes(self, index: int) -> bytes:
        return self.source.image_bytes(index)

    def fill(self, index: int, out: Pixels) -> None:
        self.source.fill(index, out)

    def describe(self, index: int) -> str:
        return self.source.describe(index)

    def fingerprint(self) -> dict[str, Any]:
        return self.source.fingerprint() | {"pairs_sha256": short_hash(self.pairs.tobytes())}


VerificationSet = PairFile | SampledPairs


def load_pairs(
    path: str | Path,
    *,
    root: str | Path | None = None,
    image_size: int = 112,
    faulty: Literal["stop", "skip"] = "stop",
) -> PairFile:
    """Read verification pairs, without running anything in the file.

    Args:
        path: insightface .bin, or a list of pairs, see `read_pair_list`.
        root: folder of the images that a list names; its own folder when not given.
        faulty: what is done with images that cannot be read, see `PairFile`.
        image_size: S in pixels.

    Raises:
        MissingInputError: no such file.
        InputError: something else in it.
    """
    path = Path(path)
    folder = path.parent if root is None else Path(root)
    if path.is_dir() and (path / "meta").is_dir():
        raise InputError(
            f"{path} is a bcolz array, a format without a maintained reader. Where bcolz can still "
            "be installed, write a .bin: images = bcolz.carray(rootdir=..., mode='r'), scale "
            "(x * 0.5 + 0.5) * 255 to uint8 HWC RGB, encode each as PNG, and pickle (list of "
            "bytes, list of bool) with protocol 2"
        )
    if not path.is_file():
        raise MissingInputError(f"no pair file {path}; check its path")
    if path.suffix in PAIR_LIST_SUFFIXES:
        files, same = read_pair_list(path, folder)
        files = found_below(folder, files, path, _ROOT_SETTINGS)
        return PairFile(path, files, same, root=folder, image_size=image_size, faulty=faulty)
    return PairFile(path, *read_pair_file(path), image_size=image_size, faulty=faulty)


def sample_pairs(
    labels: NDArray[np.int64], num_pairs: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Distinct pairs (N, 2) of image indices, genuine and impostor by turns, and which is which.

    Genuine pairs take identities in turn, so that one with many images does not dominate.

    Raises:
        InputError: too few identities or images for the pairs wanted.
    """
    members = [np.flatnonzero(labels == identity) for identity in np.unique(labels)]
    same, different = possible_pairs(members)
    wanted = min(num_pairs // 2, same, different) // 10 * 10  # of each kind
    if wanted < 10:
        raise InputError(
            f"cannot draw data.val_pairs={num_pairs} pairs from {len(members)} held-out identities "
            f"with {same} genuine and {different} impostor pairs; ten folds need 10 of each, hold "
            "out more (data.val_identities)"
        )
    rng = np.random.default_rng(seed)
    genuine = draw_genuine(members, wanted, rng)
    impostor = draw_impostor(members, wanted, rng)
    # Sorted before shuffling: the order of a set does not follow from the seed.
    orders = [rng.permutation(np.asarray(sorted(p), np.int64)) for p in (genuine, impostor)]
    pairs = np.stack(orders, axis=1).reshape(-1, 2)
    return pairs, np.tile([True, False], wanted)


def split_identities(
    labels: NDArray[np.int64], identities: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Image indices to train on and to verify on, with `identities` persons only in the latter.

    Raises:
        InputError: fewer than two identities would be left to train on.
    """
    known = np.unique(labels)
    if not 0 <= identities <= len(known) - 2:
        raise InputError(
            f"data.val_identities={identities} of {len(known)} identities leaves fewer than 2 to "
            f"train on; hold out 0 to {max(len(known) - 2, 0)}"
        )
    held = np.random.default_rng(seed).permutation(known)[:identities]
    is_held = np.isin(labels, held)
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)
