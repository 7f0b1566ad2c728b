"""Images of a verification set that are also trained on."""

import hashlib

import numpy as np

from marginface.data.dataset import FaceDataset
from marginface.data.image_dataset import ImageDataset
from marginface.utils.errors import InputError

_MOST_LOOKED_AT = 20_000  # training images; reading these takes a second or two


def shared_images(faces: FaceDataset, tests: ImageDataset) -> str | None:
    """A sentence on test images whose very bytes are in a training set; None when there are none.

    Of a large training set evenly spread images are looked at; `marginface inspect-data --pairs`
    looks at all, and finds copies of other bytes too.
    """
    of_test = {digest: index for index, digest in _digests(tests, range(len(tests)))}
    looked_at = np.unique(np.linspace(0, len(faces) - 1, _MOST_LOOKED_AT).astype(int)).tolist()
    found = [(image, of_test[d]) for image, d in _digests(faces, looked_at) if d in of_test]
    if not found:
        return None
    image, test = found[0]
    people = sorted({faces.identity(int(faces.labels[image])) for image, _ in found})
    return (
        f"{len(found)} of {len(looked_at):,} training images looked at are images of this "
        f"verification set, of {len(people)} identities ({', '.join(people[:3])}, ...); the first "
        f"is {faces.describe(image)}, which is {tests.describe(test)}. Results on it flatter the "
        "network: leave these people out (data.dataset.drop; marginface inspect-data --pairs)"
    )


def _digests(images: ImageDataset, indices: "range | list[int]") -> "list[tuple[int, bytes]]":
    found = []
    for index in indices:
        try:
            found.append((index, hashlib.blake2b(images.image_bytes(index)).digest()))
        except InputError:  # a faulty image is reported where it is decoded
            continue
    return found
