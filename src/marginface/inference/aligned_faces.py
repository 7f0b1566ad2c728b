"""Aligned faces from a folder, in memory, to check and to calibrate with."""

from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from marginface.data.alignment.faces import FaceFinder
from marginface.data.image_files import find_photos, read_image_file
from marginface.data.images import ANY_IMAGE
from marginface.inference.description import NetworkInput
from marginface.metrics.linked_people import numbered
from marginface.utils.errors import InputError


def read_aligned(
    folder: Path, taken: NetworkInput, most: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64] | None]:
    """(N, S, S, 3) RGB and the person of each, None where images are not in folders of people.

    Args:
        folder: aligned faces, directly in it or in a folder per person.
        taken: of the network; faces come onto its template.
        most: images that are read, spread over the whole folder; with folders of people all of one
            person, then of the next.

    Raises:
        MissingInputError: no folder, or no image in it.
        InputError: an image that is damaged or of another size.
    """
    photos = find_photos(folder)
    owners = [str(PurePosixPath(photo).parent) for photo in photos]
    in_folders = "." not in owners
    chosen = _by_people(owners, most) if in_folders else _spread(len(photos), most)
    finder = FaceFinder(None, taken.size, taken.points, taken.border)
    images = []
    for place in chosen:
        try:
            rgb = ANY_IMAGE.decode(read_image_file(folder, photos[place]))
            images.append(finder(rgb, photos[place])[0].pixels)
        except InputError as error:
            raise InputError(f"{folder / photos[place]}: {error}") from error
    people = numbered([owners[place] for place in chosen]) if in_folders else None
    return np.stack(images), people


def _spread(count: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _by_people(owners: list[str], most: int) -> list[int]:
    """All images of one person, then of the next, in random order, until there are enough."""
    of_person: dict[str, list[int]] = {}
    for place, owner in enumerate(owners):
        of_person.setdefault(owner, []).append(place)
    people = list(of_person.values())
    order = np.random.default_rng(0).permutation(len(people))
    chosen: list[int] = []
    for person in order:
        chosen += people[person][: most - len(chosen)]
    return sorted(chosen)
