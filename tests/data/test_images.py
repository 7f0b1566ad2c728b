"""What becomes of images that are not plain RGB JPEGs of the right size: what was asked for."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.pictures import encoded, picture
from marginface.data.images import ANY_IMAGE, ImageRules, encode_jpeg, exif_orientation
from marginface.utils.errors import InputError

RULES = ImageRules()
RGB = picture(0)


def test_jpegs_decode_as_opencv_does() -> None:
    image = encode_jpeg(RGB)
    bgr = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    out = np.empty((112, 112, 3), np.uint8)
    RULES.decode_into(image, out)
    assert (out == bgr[..., ::-1]).all()
    assert (RULES.decode(image) == out).all()


def test_gray() -> None:
    gray = encoded(RGB[..., 0], "jpeg")
    rgb = RULES.decode(gray)
    assert (rgb[..., 0] == rgb[..., 2]).all()
    assert abs(rgb[..., 0].astype(int) - RGB[..., 0]).mean() < 3
    refusing = ImageRules(grayscale="refuse")
    for kind in ("jpeg", "png"):
        with pytest.raises(InputError, match="a gray image; data.dataset.grayscale=expand"):
            refusing.decode(encoded(RGB[..., 0], kind))
        out = np.empty((112, 112, 3), np.uint8)
        with pytest.raises(InputError, match="a gray image"):
            refusing.decode_into(encoded(RGB[..., 0], kind), out)
    assert (refusing.decode(encoded(RGB, "png")) == RGB).all()


def test_transparency() -> None:
    opacity = np.full((112, 112, 1), 255, np.uint8)
    opacity[:56] = 0
    png = encoded(np.concatenate([RGB, opacity], 2), "png")
    with pytest.raises(InputError, match="transparency; set data.dataset.alpha=drop"):
        RULES.decode(png)
    assert (ImageRules(alpha="drop").decode(png) == RGB).all()
    white = ImageRules(alpha="white").decode(png)
    assert (white[:56] == 255).all()
    assert (white[56:] == RGB[56:]).all()


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif(kind: str, orientation: int) -> None:
    """Against Pillow."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encoded(np.asarray(RGB[:80]), kind, exif=exif)
    assert exif_orientation(image) == orientation
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(image))).convert("RGB"))
    assert (ANY_IMAGE.decode(image) == turned).all()
    as_stored = ImageRules(size=None, exif="ignore").decode(image)
    assert as_stored.shape == (80, 112, 3)
    if kind in ("png", "tiff"):
        assert (as_stored == RGB[:80]).all()
    refusing = ImageRules(size=None, exif="refuse")
    if orientation == 1:
        assert (refusing.decode(image) == as_stored).all()
    else:
        with pytest.raises(InputError, match=f"EXIF orientation is {orientation}"):
            refusing.decode(image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiffs_with_long_offsets(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encoded(np.asarray(RGB[:80]), "tiff", exif=exif, big_tiff=True)
    assert image.startswith(b"II+\0")
    assert exif_orientation(image) == orientation
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(image))).convert("RGB"))
    assert (ANY_IMAGE.decode(image) == turned).all()
    assert (ImageRules(size=None, exif="ignore").decode(image) == RGB[:80]).all()


def test_a_turned_square_lands_in_the_batch() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = encoded(RGB, "jpeg", exif=exif)
    out = np.zeros((112, 112, 3), np.uint8)
    RULES.decode_into(image, out)
    assert (out == RULES.decode(image)).all()
    assert not (out == ImageRules(exif="ignore").decode(image)).all()


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"II*\0", b"MM\0*\0\0\0\x08\0\1", b"XX*\0abcd"])
def test_damaged_exif_says_nothing(damaged: bytes) -> None:
    segment = b"Exif\0\0" + damaged
    size = (len(segment) + 2).to_bytes(2, "big")
    assert exif_orientation(b"\xff\xd8\xff\xe1" + size + segment) == 1


@pytest.mark.parametrize("size", [90, 130])
def test_other_sizes(size: int) -> None:
    for kind in ("jpeg", "png"):
        image = encoded(picture(1, size), kind)
        out = np.empty((112, 112, 3), np.uint8)
        with pytest.raises(InputError, match=f"{size}x{size} pixels, expected 112x112; align"):
            RULES.decode_into(image, out)
        with pytest.raises(InputError, match=f"{size}x{size} pixels, expected 112x112; align"):
            RULES.decode(image)
        ImageRules(resize=True).decode_into(image, out)
        assert abs(out.astype(int) - picture(1)).mean() < 12


def test_kinds_only_opencv_reads() -> None:
    cmyk = Image.fromarray(RGB).convert("CMYK")
    buffer = io.BytesIO()
    cmyk.save(buffer, "jpeg", quality=95)
    assert abs(RULES.decode(buffer.getvalue()).astype(int) - RGB).mean() < 6
    deep = cv2.imencode(".png", RGB.astype(np.uint16) * 256)[1].tobytes()
    with pytest.raises(InputError, match="uint16 pixels, expected 8 bits"):
        RULES.decode(deep)


def test_damaged_images() -> None:
    image = encode_jpeg(RGB)
    cases = {
        b"": "not a decodable image",
        b"no image": "not a decodable image",
        image[:10]: "not a decodable image",
        image[: len(image) // 2]: "damaged JPEG .Premature end",
        image[: len(image) // 2] + bytes(200) + image[len(image) // 2 + 200 :]: "damaged JPEG",
    }
    out = np.empty((112, 112, 3), np.uint8)
    for damaged, message in cases.items():
        with pytest.raises(InputError, match=message):
            RULES.decode(damaged)
        with pytest.raises(InputError, match=message):
            RULES.decode_into(damaged, out)


def test_a_header_that_claims_all_memory() -> None:
    image = bytearray(encode_jpeg(RGB))
    start = image.index(b"\xff\xc0")
    image[start + 5 : start + 9] = b"\xff\xdc\xff\xdc"  # 65,500 x 65,500
    with pytest.raises(InputError, match="65500x65500 pixels"):
        ANY_IMAGE.decode(bytes(image))
    with pytest.raises(InputError, match="65500x65500 pixels, expected 112x112"):
        RULES.decode_into(bytes(image), np.empty((112, 112, 3), np.uint8))
