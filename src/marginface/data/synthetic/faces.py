"""Procedural faces: no download, no license, the same pixels everywhere for the same seed.

They are hard enough that a small network does not saturate on unseen persons.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from marginface.data.dataset import FaceDataset
from marginface.data.images import Pixels, encode_jpeg
from marginface.data.synthetic.drawing import FaceModel, render_face
from marginface.utils.console import tracked
from marginface.utils.errors import InputError
from marginface.utils.files import atomic_write
from marginface.utils.hashes import short_hash

# Part of the cache's name: raise it whenever a pixel changes.
GENERATOR_VERSION = 1


class SyntheticFaces(FaceDataset):
    """Rendered faces, made once and then mapped from a cache file under `root`.

    Args:
        root: folder of the cache.
        identities: number of persons.
        images_per_identity: photographs of each.
        image_size: S in pixels.
        seed: decides every pixel.
    """

    def __init__(
        self,
        root: str | Path = "logs/cache",
        *,
        identities: int = 360,
        images_per_identity: int = 20,
        image_size: int = 112,
        seed: int = 0,
    ) -> None:
        if identities < 1 or images_per_identity < 1:
            raise InputError(
                "synthetic faces need at least one identity with one image, got "
                f"identities={identities}, images_per_identity={images_per_identity}"
            )
        recipe = {
            "version": GENERATOR_VERSION,
            "identities": identities,
            "images_per_identity": images_per_identity,
            "image_size": image_size,
            "seed": seed,
        }
        digest = short_hash(json.dumps(recipe, sort_keys=True), digits=12)
        self.path = Path(root) / f"synthetic-{digest}.npy"
        if not self.path.is_file():
            _render_all(self.path, identities, images_per_identity, image_size, seed)
        self._faces: NDArray[np.uint8] = np.load(self.path, mmap_mode="r")
        super().__init__(
            np.repeat(np.arange(identities), images_per_identity),
            identities,
            image_size=image_size,
            where=f"synthetic faces (seed {seed})",
        )

    def image_bytes(self, index: int) -> bytes:
        """Encoded on demand; what is stored are pixels."""
        return encode_jpeg(self._faces[index])

    def fill(self, index: int, out: Pixels) -> None:
        out[:] = self._faces[index]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_faces": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._faces = np.load(self.path, mmap_mode="r")


def _render_all(
    path: Path, identities: int, images_per_identity: int, image_size: int, seed: int
) -> None:
    print(f"rendering {identities * images_per_identity} synthetic faces into {path} ...")
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    tasks = [(seed, identity, images_per_identity, image_size) for identity in range(identities)]
    shape = (identities * images_per_identity, image_size, image_size, 3)
    with atomic_write(path) as file, ProcessPoolExecutor(workers) as pool:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        people = pool.map(_render_person, tasks, chunksize=8)
        for images in tracked(people, len(tasks), "people"):
            file.write(images.tobytes())


def _render_person(task: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    seed, identity, count, image_size = task
    cv2.setNumThreads(0)
    person = FaceModel.draw(np.random.default_rng([seed, identity]))
    return np.stack(
        [
            render_face(person, np.random.default_rng([seed, identity, k]), image_size)
            for k in range(count)
        ]
    )
