"""Pages as a browser draws them: light, dark, on a phone; and how long the page of a run is."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from helpers.written_runs import CURVES, write_run, write_sweep
from marginface.pages.run_page import write_run_page
from marginface.pages.sweep_page import finish_sweep
from marginface.runs.folder import RunFolder


@pytest.fixture
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if path is None:
        pytest.skip("needs Chromium (apt-get install chromium-headless-shell)")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path)
        yield chromium
        chromium.close()


def pages(folder: Path) -> list[Path]:
    run = write_run(folder / "run", info={"changed_settings": {"head.k": [0.6, 0.65]}})
    RunFolder(run).add_curves(CURVES)
    write_sweep(
        folder / "sweep",
        {
            "x2softmax": {1: 0.90, 2: 0.91, 3: 0.92},
            "a_head_with_a_long_name": {1: 0.8, 2: 0.811, 3: 0.819},
        },
    )
    finish_sweep(folder / "sweep")
    return [write_run_page(run), folder / "sweep" / "report.html"]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_what_is_seen(browser: Any, tmp_path: Path, scheme: str, width: int) -> None:
    for number, path in enumerate(pages(tmp_path)):
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        problems: list[str] = []
        page.on("console", lambda message, found=problems: found.append(message.text))
        page.on("requestfailed", lambda request, found=problems: found.append(request.url))
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out"
        assert problems == []
        words = page.inner_text("body")
        assert ("best verification accuracy", "highest mean accuracy")[number] in words
        # Every letter of every chart is inside its chart.
        outside = page.evaluate(
            """() => [...document.querySelectorAll('svg.chart text')].filter(text => {
                const a = text.getBoundingClientRect();
                const b = text.closest('svg').getBoundingClientRect();
                return a.width && (a.left < b.left - 1 || a.right > b.right + 1 ||
                                   a.top < b.top - 1 || a.bottom > b.bottom + 1);
            }).map(text => text.textContent)"""
        )
        assert outside == []
        # The numbers that are read first are on the first screen.
        card = page.query_selector(".card")
        assert card is not None
        assert card.bounding_box()["y"] < 400
        picture = tmp_path / f"{number}.png"
        page.screenshot(path=str(picture), full_page=True)
        drawn = cv2.imread(str(picture))
        assert drawn is not None
        background = np.median(drawn[:, :4].reshape(-1, 3), axis=0)
        assert (background > 240).all() if scheme == "light" else (background < 60).all()
        line = np.array([219, 111, 42])  # of the first series, BGR
        assert (np.abs(drawn.astype(int) - line).max(2) < 12).sum() > 300
        page.close()
