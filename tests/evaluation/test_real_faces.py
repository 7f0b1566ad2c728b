"""Real faces: pairs, IJB-style 1:1 and 1:N in one command, and the page in a browser."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import html5lib
import numpy as np
import pytest

from helpers.browser import screenshot

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.slow
@pytest.mark.first
def test_one_command_on_real_faces(faces: Path, tmp_path: Path, command: Command) -> None:
    threads = str(os.cpu_count())
    small = ["experiment=faces_demo", "backbone.image_size=64", "data.dataset.resize=true"]
    short = ["trainer.max_epochs=1", "trainer.precision=32-true", "data.val_identities=0"]
    short += ["trainer.limit_train_batches=45"]
    quiet = ["logger=csv", "callbacks.progress=null", f"hydra.run.dir={tmp_path / 'run'}"]
    trained = command(
        "train.py", f"data.root={faces / 'train'}", *small, *short, *quiet,
        timeout=280, OMP_NUM_THREADS=threads,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    pairs = [str(faces / f"dev_cfp_{kind}.bin") for kind in ("ff", "fp")]
    done = command(
        "evaluate.py", f"checkpoint={tmp_path / 'run'}", "benchmark=[pairs,ijbc]",
        f"benchmark.pairs.files=[{','.join(pairs)}]", f"benchmark.ijbc.root={faces / 'ijb_style'}",
        "thumbnails=true", f"paths.log_dir={tmp_path}", f"hydra.run.dir={tmp_path / 'out'}",
        OMP_NUM_THREADS=threads,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    for key in (
        "dev_cfp_ff/accuracy", "dev_cfp_fp/auc", "ijbc/tar@1e-2", "ijbc/rank1", "ijbc/tpir@1e-1",
    ):  # fmt: skip
        assert result[f"{key}/low"] <= result[key] <= result[f"{key}/high"], key
    # Better than chance: 1 of 40 gallery subjects, half of the pairs.
    assert result["ijbc/rank1/low"] > 0.05
    assert result["dev_cfp_ff/auc/low"] > 0.55
    _look_at(tmp_path / "out" / "report.html")


def _look_at(page: Path) -> None:
    html5lib.HTMLParser(strict=True).parse(page.read_text())
    light, dark = (screenshot(page, 2400, dark=mode) for mode in (False, True))
    assert (light[:20] > 240).mean() > 0.9, "a light page"
    assert (dark[:20] < 60).mean() > 0.9, "a dark page"
    for drawn in (light, dark):
        # The histograms' areas lie on the page, 35 % of each of their two colors (BGR).
        for color in ((219, 111, 42), (13, 115, 217)):
            blended = 0.35 * np.array(color) + 0.65 * drawn[5, 5]
            assert (np.abs(drawn - blended).max(2) < 10).mean() > 2e-4, color
        # Nothing runs out of the page: its right edge is empty.
        assert drawn[:, 990:].std(axis=(0, 1)).max() < 1
