"""Pages drawn by headless Chromium, for tests that look at them."""

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray


def screenshot(page: Path, height: int = 2000, *, dark: bool = False) -> NDArray[np.uint8]:
    """(height, 1000, 3) BGR of the top of a page; skips where there is no Chromium.

    The browser gets no network: every name is resolved to nothing.
    """
    browser = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if browser is None:
        pytest.skip("needs Chromium (apt-get install chromium-headless-shell)")
    picture = page.with_suffix(".dark.png" if dark else ".png")
    subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"),
            "--host-resolver-rules=MAP * ~NOTFOUND",
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
            *(f"--window-size=1000,{height}", f"--screenshot={picture}", page.as_uri()),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    drawn = cv2.imread(str(picture))
    assert drawn is not None
    assert drawn.shape == (height, 1000, 3)
    return np.asarray(drawn, np.uint8)
