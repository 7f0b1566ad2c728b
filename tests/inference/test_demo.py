"""The page to try a model: its functions, and the page itself in headless Chromium."""

import os
import shutil
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest

import marginface
from helpers.small_models import random_faces, small_model
from marginface.data.alignment.template import TEMPLATE
from marginface.inference import demo
from marginface.inference.model import Model
from marginface.utils.errors import InputError

POINTS = TEMPLATE * 2 + np.array([40, 60])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two photographs of one person and one of another, the face always in one place."""
    folder = tmp_path_factory.mktemp("photos")
    pictures = random_faces(2, 2)
    paths = []
    for name, rgb in (("a0", pictures[0, 0]), ("a1", pictures[0, 1]), ("b0", pictures[1, 0])):
        photo = np.full((360, 320, 3), 90, np.uint8)
        photo[60:284, 40:264] = cv2.resize(rgb, (224, 224))
        paths.append(folder / f"{name}.png")
        cv2.imwrite(str(paths[-1]), photo[..., ::-1])
    return paths


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return small_model(tmp_path, detector=lambda rgb: [POINTS] if rgb.shape[0] == 360 else [])


def rgb_of(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])


def test_comparing(model: Model, photos: list[Path]) -> None:
    first, second, other = map(rgb_of, photos)
    *pictures, words = demo.compare(model, first, second, 1e-3, 0.6)
    assert "## The same person" in words
    assert "threshold **0.600**" in words
    assert [p.shape for p in pictures if p is not None] == [first.shape] * 2 + [(112, 112, 3)] * 2
    marks = (pictures[0] != first).any(2)
    assert marks[round(POINTS[0, 1]), round(POINTS[0, 0])]  # an eye
    assert "## Two people" in demo.compare(model, first, other, 1e-3, 0.6)[-1]
    assert demo.compare(model, first, None, 1e-3, 0.6)[-1] == "Give a second photograph."
    empty = demo.compare(model, first, np.zeros((50, 50, 3), np.uint8), 1e-3, 0.6)
    assert empty[-1] == "The second photograph: no face"
    without = demo.compare(model, first, second, 1e-3, None)[-1]
    assert "Without a threshold this says nothing: the model has no thresholds" in without


def test_finding(model: Model, photos: list[Path], tmp_path: Path) -> None:
    with marginface.Gallery.open(tmp_path / "a.gallery", model, create=True) as gallery:
        gallery.enroll("ann", photos[:1])
        drawn, words = demo.find(gallery, rgb_of(photos[1]), 0.01, 0.6)
        assert "| 1 | ann | 0." in words
        assert drawn is not None
        assert "| 1 | unknown | " in demo.find(gallery, rgb_of(photos[2]), 0.01, 0.99)[1]
        assert "needs 200 people" in demo.find(gallery, rgb_of(photos[1]), 0.01, None)[1]
        assert demo.find(gallery, None, 0.01, None) == (None, "Give a photograph.")


def test_in_a_browser(model: Model, photos: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    sync_api = pytest.importorskip("playwright.sync_api")
    browser = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if browser is None:
        pytest.skip("needs Chromium (apt-get install chromium-headless-shell)")
    with marginface.Gallery.open(tmp_path / "a.gallery", model, create=True) as gallery:
        gallery.enroll("ann", photos[:1])
        with (
            demo.served(model, gallery, threshold=0.6) as served,
            sync_api.sync_playwright() as playwright,
        ):
            assert served.local_url.startswith("http://127.0.0.1:")
            kept = Path(os.environ["GRADIO_TEMP_DIR"])
            assert kept.stat().st_mode & 0o077 == 0
            chromium = playwright.chromium.launch(executable_path=browser)
            page = chromium.new_page()
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.goto(served.local_url)
            page.wait_for_selector("#compare")
            for name, path in (("first", photos[0]), ("second", photos[1])):
                page.set_input_files(f"#{name} input[type=file]", str(path))
                page.wait_for_selector(f"#{name} img")
            page.click("#compare")
            page.wait_for_selector("#meaning h2")
            assert "The same person" in page.inner_text("#meaning")
            page.get_by_role("tab", name="Who is it").click()
            page.set_input_files("#photo input[type=file]", str(photos[1]))
            page.wait_for_selector("#photo img")
            page.click("#search")
            page.wait_for_selector("#answer table")
            assert "ann" in page.inner_text("#answer")
            chromium.close()
            port = int(served.local_url.rstrip("/").rpartition(":")[2])
            with pytest.raises(OSError, match="refused|unreachable"):
                socket.create_connection((_other_address(), port), timeout=2).close()
    assert not kept.exists()
    others = [url for url in asked if not url.startswith(("http://127.0.0.1", "data:", "blob:"))]
    assert others == []


def _other_address() -> str:
    """An address of this machine that others reach it by; one that refuses where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.2"


def test_a_port_in_use(model: Model) -> None:
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"--port {port} is in use on 127.0.0.1"),
            demo.served(model, port=port),
        ):
            pass
