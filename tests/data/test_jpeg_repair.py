"""JPEGs with harmless oddities are read; those that lack data are not."""

from collections.abc import Callable

import numpy as np
import pytest

from helpers.pictures import encoded, jpegs, picture
from marginface.data.images import ANY_IMAGE
from marginface.utils.errors import InputError

PLAIN = jpegs(1)[0]
PROGRESSIVE = encoded(picture(0), "JPEG", progressive=True)
SCAN = PLAIN.index(b"\xff\xda")
TABLES = PLAIN.index(b"\xff\xdb")
PARAMETERS = SCAN + 2 + int.from_bytes(PLAIN[SCAN + 2 : SCAN + 4], "big") - 3


def with_parameters(values: bytes) -> bytes:
    return PLAIN[:PARAMETERS] + values + PLAIN[PARAMETERS + 3 :]


HARMLESS = {
    "as it is": PLAIN,
    "bytes between segments": PLAIN[:TABLES] + b"ab" + PLAIN[TABLES:],
    "zeros between segments": PLAIN[:SCAN] + bytes(9) + PLAIN[SCAN:],
    "no end marker": PLAIN[:-2],
    "half an end marker": PLAIN[:-1],
    "bytes behind the end": PLAIN + b"more of it",
    "scan parameters": with_parameters(b"\0\0\0"),
    "other scan parameters": with_parameters(b"\0\x3e\x11"),
    "several": (PLAIN[:TABLES] + b"ab" + with_parameters(b"\0\0\0")[TABLES:])[:-2],
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless(kind: str) -> None:
    assert (ANY_IMAGE.decode(HARMLESS[kind]) == ANY_IMAGE.decode(PLAIN)).all()


def test_progressive_without_an_end_marker() -> None:
    assert (ANY_IMAGE.decode(PROGRESSIVE[:-2]) == ANY_IMAGE.decode(PROGRESSIVE)).all()


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "half": lambda image: image[: len(image) // 2],
    "without its last bytes": lambda image: image[:-40],
    "without its last bytes, with an end": lambda image: image[:-40] + image[-2:],
    "a hole": lambda image: image[: SCAN + 200] + image[SCAN + 300 :],
    "cut in a table": lambda image: image[: TABLES + 10],
    "no scan": lambda image: image[:SCAN] + b"\xff\xd9",
    "two bytes": lambda image: image[:2],
    "a length beyond the file": lambda image: image[:4] + b"\xff\xff" + image[6:],
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged(kind: str) -> None:
    with pytest.raises(InputError):
        ANY_IMAGE.decode(DAMAGED[kind](PLAIN))


def test_no_damage_is_taken_for_an_oddity() -> None:
    """Bytes of the scan changed at random: whatever is read now was read without a warning."""
    rng = np.random.default_rng(0)
    read = 0
    for _ in range(150):
        at = int(rng.integers(SCAN + 20, len(PLAIN) - 20))
        image = PLAIN[:at] + rng.bytes(8) + PLAIN[at + 8 :]
        strict = _reads_without_warning(image)
        try:
            ANY_IMAGE.decode(image)
        except InputError:
            assert not strict
            continue
        read += 1
        assert strict
    assert 0 < read < 150


def _reads_without_warning(image: bytes) -> bool:
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(image, strict=True)
    except ValueError:
        return False
    return True
