"""Verification sets: images, and pairs of them that show the same person or not."""

import hashlib
import io
import pickle
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from marginface.data.dataset import FaceDataset
from marginface.data.images import Pixels, decode_rgb
from marginface.errors import InputError, MissingInputError

# What a pickle of (list of bytes or uint8 arrays, list of bool) may name, under NumPy 1 and 2 and
# for Python 3 bytes written with protocol 2. Anything else could run code.
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise InputError(f"its pickle asks for {module}.{name}, which is not data; refused")
        # NumPy 2 keeps numpy.core as a deprecated alias only.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


class PairFile(FaceDataset):
    """An insightface .bin pair file: 2N encoded images, pair i is images 2i and 2i + 1.

    Images of another size are scaled so that the short side fits and cut to the centre, as in
    insightface's reader.

    Attributes:
        same: (N,) whether a pair shows one person.
        pairs: (N, 2) image indices of each pair.
        images: uint8 (2N, 3, S, S), decoded on first use.
    """

    def __init__(self, path: str | Path, *, image_size: int = 112) -> None:
        self.path = Path(path)
        self.encoded, self.same = read_pair_file(self.path)
        self.pairs = np.arange(len(self.encoded)).reshape(-1, 2)
        super().__init__(
            np.zeros(len(self.encoded), np.int64), image_size=image_size, where=str(self.path)
        )

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(".bin")

    @cached_property
    def images(self) -> Tensor:
        return self.__getitems__(list(range(len(self))))[0]

    def pixels(self, index: int) -> Pixels:
        rgb = decode_rgb(self.encoded[index], self.describe(index))
        return fit_square(rgb, self.image_size)

    def fingerprint(self) -> dict[str, Any]:
        sizes = np.asarray([len(image) for image in self.encoded], np.int64)
        content = hashlib.sha256(self.same.tobytes() + sizes.tobytes()).hexdigest()[:16]
        return {"kind": "PairFile", "pairs": len(self.same), "content_sha256": content}


class DrawnPairs(FaceDataset):
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
        self.pairs, self.same = draw_pairs(source.labels, num_pairs, seed)
        super().__init__(
            source.labels,
            source.num_classes,
            image_size=source.image_size,
            resize=source.resize,
            where=source.where,
        )

    def pixels(self, index: int) -> Pixels:
        return self.source.pixels(index)

    def describe(self, index: int) -> str:
        return self.source.describe(index)


VerificationSet = PairFile | DrawnPairs


def load_pairs(path: str | Path, *, image_size: int = 112) -> PairFile:
    """Read an insightface .bin file without running anything in it."""
    return PairFile(path, image_size=image_size)


def read_pair_file(path: Path) -> tuple[list[bytes | Pixels], NDArray[np.bool_]]:
    """The encoded images and the labels of a .bin file, written by Python 2 or 3.

    Raises:
        MissingInputError: no such file.
        InputError: a pickle that asks for anything but data, or that holds something else.
    """
    if not path.is_file():
        raise MissingInputError(f"no pair file {path}; check data.pairs")
    try:
        content = _RestrictedUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise InputError(f"{path} is not a pickled pair file ({error})") from error
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise InputError(f"{path}: expected a pickled (images, same), got {type(content).__name__}")
    images, same = content
    if not isinstance(images, list | tuple | np.ndarray) or not hasattr(same, "__len__"):
        raise InputError(f"{path}: expected a list of images and a list of labels")
    encoded = [_encoded(image, path, index) for index, image in enumerate(images)]
    labels = np.asarray(list(same)).astype(bool)
    if not encoded or len(encoded) != 2 * len(labels):
        raise InputError(
            f"{path}: {len(labels)} labels need {2 * len(labels)} images, got {len(encoded)}"
        )
    return encoded, labels


def _encoded(image: Any, path: Path, index: int) -> bytes | Pixels:
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        return image.reshape(-1)
    raise InputError(f"{path}: image {index} is {type(image).__name__}, not encoded bytes")


def fit_square(rgb: Pixels, size: int) -> Pixels:
    """Scale the short side to `size` and cut the centre square."""
    height, width = rgb.shape[:2]
    if (height, width) == (size, size):
        return rgb
    scale = size / min(height, width)
    shape = max(size, round(width * scale)), max(size, round(height * scale))
    scaled: Pixels = cv2.resize(
        rgb, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    top, left = (scaled.shape[0] - size) // 2, (scaled.shape[1] - size) // 2
    return scaled[top : top + size, left : left + size]


def draw_pairs(
    labels: NDArray[np.int64], num_pairs: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Distinct pairs (N, 2) of image indices, genuine and impostor by turns, and which is which.

    Genuine pairs take identities in turn, so that one with many images does not dominate.

    Raises:
        InputError: too few identities or images for the pairs wanted.
    """
    members = [np.flatnonzero(labels == identity) for identity in np.unique(labels)]
    several = [m for m in members if len(m) > 1]
    same = sum(len(m) * (len(m) - 1) // 2 for m in several)
    different = len(labels) * (len(labels) - 1) // 2 - same
    wanted = min(num_pairs // 2, same, different) // 10 * 10  # of each kind
    if wanted < 10:
        raise InputError(
            f"cannot draw data.val_pairs={num_pairs} pairs from {len(members)} held-out identities "
            f"with {same} genuine and {different} impostor pairs; ten folds need 10 of each, hold "
            "out more (data.val_identities)"
        )
    rng = np.random.default_rng(seed)
    genuine: set[tuple[int, int]] = set()
    turn = 0
    while len(genuine) < wanted:
        first, second = rng.choice(several[turn % len(several)], 2, replace=False)
        genuine.add((min(first, second), max(first, second)))
        turn += 1
    impostor: set[tuple[int, int]] = set()
    while len(impostor) < wanted:
        one, other = rng.choice(len(members), 2, replace=False)
        first, second = rng.choice(members[one]), rng.choice(members[other])
        impostor.add((min(first, second), max(first, second)))
    # Sorted before shuffling: the order of a set is no property of the seed.
    orders = [rng.permutation(np.asarray(sorted(p), np.int64)) for p in (genuine, impostor)]
    pairs = np.stack(orders, axis=1).reshape(-1, 2)
    return pairs, np.tile([True, False], wanted)


def hold_out(
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
