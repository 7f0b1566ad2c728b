"""The page of a run: what it shows, what it warns of, what half-written folders give."""

import json
import re
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pytest

from helpers.written_runs import CURVES, healthy, write_log, write_run
from marginface.pages.run_data import read_run
from marginface.pages.run_page import write_run_page
from marginface.pages.run_warnings import run_warnings
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.process_identity import this_process


def page_of(folder: Path) -> str:
    text = write_run_page(folder).read_text()
    html5lib.HTMLParser(strict=True).parse(text)
    assert not re.search(r'(?:src|href)="(?!data:)|url\(|@import|<script', text), "self-contained"
    return text


def warnings_of(folder: Path) -> list[str]:
    return run_warnings(read_run(folder))


def test_what_a_healthy_run_shows(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run",
        info={"changed_settings": {"head.k": [0.6, 0.65]}, "versions": {"torch": "2"}},
        result={"untrained/dev/accuracy": 0.51},
    )
    (run / "curves.json").write_text(json.dumps(CURVES))
    text = page_of(run)
    for words in (
        "best verification accuracy", "90.00 %", "verification: accuracy", "TAR at FAR 1e-2",
        "verification: threshold", "angle of an image to its own center",
        "curve of x2softmax, and where the images are on it", "norm of the embeddings",
        "gradient norm of the backbone, before clipping", "learning rate", "waiting for data",
        "dev: ROC", "dev: scores", "python train.py seed=1", "Not the defaults", "head.k",
        "untrained 51.0 %", "Done at step 591 of 600",
    ):  # fmt: skip
        assert words in text, words
    assert text.index("best verification accuracy") < text.index("All settings")
    assert "Warning" not in text
    assert warnings_of(run) == []


def changed(**columns: Any) -> dict[str, np.ndarray]:
    return healthy() | {name.replace("__", "/"): value for name, value in columns.items()}


rows = np.arange(60) / 59
EVERY_20TH = np.arange(60) % 20 == 19


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"train__loss": 20 + 5 * rows}, ["rose from 20 to 24", "ends at 24", "optimizer.lr"]),
        ({"train__loss": 20 + 0 * rows}, ["The loss does not fall", "optimizer.lr"]),
        (
            {"train__loss": 40 - 30 * rows},
            ["The first loss was 40, and random class centers give 20"],
        ),
        (
            {"val__mean__accuracy": np.where(rows > 0.9, 0.51, np.nan)},
            ["cannot be told apart", "Labels that do not belong", "optimizer.lr"],
        ),
        (
            {
                "train__accuracy": np.minimum(1, 3 * rows),
                "val__mean__accuracy": np.where(EVERY_20TH, 0.95 - 0.1 * rows, np.nan),
            },
            ["Training accuracy is 100.0 % while verification fell from 91.78 to 85.00 %"],
        ),
        ({"speed__data_wait_share": 0.4 + 0 * rows}, ["40 % of the time", "(it was 2)"]),
        ({"train__gradient_norm": 50 + rows}, ["clipped in nearly every step", "is 50.6 in"]),
        ({"train__grad_scale": 65536 * 0.5 ** (12 * rows)}, ["scale of the loss fell", "bf16"]),
    ],
)  # fmt: skip
def test_planted_faults(columns: dict[str, np.ndarray], words: list[str], tmp_path: Path) -> None:
    run = write_run(tmp_path, changed(**columns))
    found = warnings_of(run)
    assert len(found) == 1, found
    for word in words:
        assert word in found[0]
    assert f"Warning: {found[0][:40]}"[:40] in page_of(run).replace("&#x27;", "'")


def test_a_short_run_has_no_trend(tmp_path: Path) -> None:
    columns = {name: column[:8] for name, column in changed(train__loss=20 + rows).items()}
    assert warnings_of(write_run(tmp_path, columns)) == []


def test_loss_of_trained_centers_may_rise_at_first(tmp_path: Path) -> None:
    loss = np.where(rows < 0.2, 5 + 10 * rows, 7 - 5 * rows)
    run = write_run(tmp_path, changed(train__loss=loss))
    info = json.loads((run / "runinfo.json").read_text())
    del info["expected_first_loss"]
    (run / "runinfo.json").write_text(json.dumps(info))
    assert warnings_of(run) == []


def test_loss_of_a_margin_that_moves_may_rise(tmp_path: Path) -> None:
    run = write_run(tmp_path, changed(train__loss=20 + 5 * rows), info={"margin_moves": True})
    assert warnings_of(run) == []


def test_a_run_that_said_why_it_stopped(tmp_path: Path) -> None:
    run = write_run(tmp_path, state="stopped")
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"reason": "the loss is nan at step 3"}))
    assert warnings_of(run) == ["The run stopped: the loss is nan at step 3"]


def test_a_killed_run_is_stopped_and_a_living_one_runs(tmp_path: Path) -> None:
    run = write_run(tmp_path, state="running")
    status = json.loads((run / "status.json").read_text())
    living = this_process()
    (run / "status.json").write_text(json.dumps(status | {"process": living}))
    assert "Running at step 591 of 600" in page_of(run)
    gone = living | {"started": (living["started"] or 0) - 1}
    (run / "status.json").write_text(json.dumps(status | {"process": gone}))
    assert "Stopped at step 591 of 600" in page_of(run)
    assert "without saying why" in warnings_of(run)[0]


def test_a_folder_that_has_just_begun(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    for name in ("metrics.csv", "result.json", "runinfo.json", "status.json"):
        (run / name).unlink()
    assert "No step has been logged yet" in page_of(run)


def test_a_log_that_ends_in_the_middle_of_a_line(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    with (run / "metrics.csv").open("a") as file:
        file.write("600,3,0.0")
    assert "at step 591" in page_of(run)


def test_what_is_missing_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="it does not exist"):
        write_run_page(tmp_path / "none")
    with pytest.raises(MissingInputError, match="it has no config.yaml"):
        write_run_page(tmp_path)
    run = write_run(tmp_path / "run")
    (run / "metrics.csv").write_text("step,train/loss\n0,1.0\n1,high\n")
    with pytest.raises(InputError, match=r"metrics.csv, line 3: 'high' is not a number"):
        write_run_page(run)
    (run / "metrics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="names no 'step'"):
        write_run_page(run)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("result.json", '{"a": 1', "result.json is damaged"),
        ("status.json", "[1", "status.json is damaged"),
        ("status.json", "null", "status.json is damaged: it holds NoneType, not values by name"),
        ("result.json", "[1]", "result.json is damaged: it holds list, not values by name"),
        ("curves.json", "x", "curves.json is damaged"),
        ("config.yaml", "", "config.yaml is damaged: it holds no settings"),
        ("config.yaml", "a: [1", "config.yaml is damaged"),
        ("metrics.csv", "step,epo", "metrics.csv has no whole first line yet"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    run = write_run(tmp_path)
    (run / name).write_text(content)
    with pytest.raises(InputError, match=message):
        write_run_page(run)


def test_rates_that_a_single_pair_decides_are_not_drawn(tmp_path: Path) -> None:
    columns = healthy() | {"val/dev/tar@1e-6": healthy()["val/dev/tar@1e-2"]}
    run = write_run(tmp_path, columns)
    assert "TAR at FAR 1e-6" in page_of(run)
    (run / "curves.json").write_text(json.dumps(CURVES))  # 1,000 impostor pairs
    text = page_of(run)
    assert "TAR at FAR 1e-6" not in text
    assert "TAR at FAR 1e-2" in text


def test_the_command_that_repeats_a_job_of_a_sweep(tmp_path: Path) -> None:
    command = "train.py 'head=x y' 'hydra.run.dir=\"/s/0\"' hydra.mode=RUN seed=1"
    text = page_of(write_run(tmp_path, info={"starts": [{"command": command}]}))
    assert "<pre>python train.py &#x27;head=x y&#x27; seed=1</pre>" in text


def test_names_that_look_like_markup(tmp_path: Path) -> None:
    columns = {name.replace("val/dev", "val/<b>&"): column for name, column in healthy().items()}
    run = write_run(tmp_path, columns, config={"name": "<script>alert(1)</script>"})
    assert "<script>" not in page_of(run)


def test_a_long_log_is_thinned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {name: np.resize(column, 20_000) for name, column in healthy().items()}
    columns["step"] = np.arange(20_000.0)
    columns["train/loss"] = 20 - rng.random(20_000)
    columns["train/loss"][12_345] = 77.0
    run = write_run(tmp_path)
    write_log(run, columns)
    text = page_of(run)
    assert len(text) < 500_000
    # The peak is the highest point of its curve: at the top edge of the plot but for the margin.
    loss = text[text.index(">loss<") :]
    points = re.search(r'points="([^"]+)"', loss)
    assert points is not None
    highest = min(float(pair.split(",")[1]) for pair in points[1].split())
    assert highest < 22
