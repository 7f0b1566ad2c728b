"""Who is at fault decides what a command prints: a line, or a traceback and where to report it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from marginface.cli.errors import clear_errors
from marginface.utils.errors import InputError, NonFiniteLossError


def raise_(error: BaseException) -> None:
    raise error


def wrong_for_lightning() -> None:
    import lightning

    lightning.Trainer(limit_train_batches=-3, accelerator="cpu", logger=False)


def wrong_for_opencv() -> None:
    import cv2
    import numpy as np

    cv2.resize(np.zeros((4, 4), np.uint8), (0, 0))


def wrong_for_timm() -> None:
    import timm

    timm.create_model("resnet10t", features_only=True, out_indices=(99,))


def bug_of_ours() -> None:
    from marginface.utils.hashes import short_hash

    short_hash(3)  # type: ignore[arg-type]


def bug_below_torch() -> None:
    from marginface.metrics.scores import check_finite

    check_finite("no tensor", "it")  # type: ignore[arg-type]


ENDS: dict[str, tuple[Callable[[], object], int, str]] = {
    "a mistake": (lambda: raise_(InputError("a.b: wrong")), 2, "error: a.b: wrong\n"),
    "a broken run": (lambda: raise_(NonFiniteLossError("nan")), 1, "error: nan\n"),
    "no file": (
        lambda: Path("/nowhere/x").read_bytes(),
        2,
        "error: /nowhere/x: No such file or directory\n",
    ),
    "no space": (lambda: raise_(OSError(28, "No space left", "/x")), 2, "error: /x: No space"),
    "no memory": (lambda: raise_(MemoryError("8 GiB")), 2, "error: out of memory: lower data."),
    "lightning": (wrong_for_lightning, 2, "error: trainer.limit_train_batches: You have passed"),
    "omegaconf": (lambda: OmegaConf.load("/nowhere.yaml"), 2, "error: /nowhere.yaml: No such file"),
    "opencv": (wrong_for_opencv, 2, "error: cv2: OpenCV"),
    "timm": (wrong_for_timm, 2, "error: timm: "),
}


@pytest.mark.parametrize("kind", ENDS)
def test_one_line(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    action, code, message = ENDS[kind]
    with pytest.raises(SystemExit) as ended, clear_errors():
        action()
    printed = capsys.readouterr().err
    assert ended.value.code == code
    lines = [line for line in printed.splitlines() if not line.startswith("INFO")]  # Lightning's
    assert f"{lines[0]}\n".startswith(message)
    assert len(lines) == 1


@pytest.mark.parametrize("bug", [bug_of_ours, bug_below_torch])
def test_a_bug_says_where_to_report_it(
    bug: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, clear_errors():
        bug()
    printed = capsys.readouterr().err
    assert ended.value.code == 1
    assert printed.startswith("Traceback")
    assert printed.splitlines()[-1].startswith("this is a bug of marginface: please open an issue")


def test_code_of_the_user_keeps_its_traceback() -> None:
    with pytest.raises(json.JSONDecodeError), clear_errors():
        json.loads("{")


def test_the_traceback_can_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MARGINFACE_TRACEBACK", "1")
    with pytest.raises(SystemExit), clear_errors():
        raise InputError("a.b: wrong")
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback")
    assert printed.endswith("error: a.b: wrong\n")
