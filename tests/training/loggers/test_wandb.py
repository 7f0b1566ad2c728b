"""W&B never stops a run: without a key, a server or its consent it goes on offline."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.written_runs import CURVES, write_run
from marginface.pages.run_page import write_run_page
from marginface.runs.folder import RunFolder
from marginface.training.loggers import wandb as module
from marginface.training.loggers import wandb_logger
from marginface.training.loggers.wandb import log_page


@pytest.fixture(autouse=True)
def logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_MODE", raising=False)


@pytest.fixture
def fresh_wandb() -> None:
    import wandb

    if wandb.run is not None:  # of a training in another test
        wandb.finish()


def mode_of(folder: Path, **settings: str) -> str:
    return str(wandb_logger(save_dir=str(folder), name="run", **settings)._wandb_init["mode"])


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nobody_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port()}")
    assert mode_of(tmp_path) == "offline"
    printed = capsys.readouterr().err
    assert printed.startswith("warning: W&B runs offline: http://127.0.0.1:")
    assert len(printed.splitlines()) == 1


def test_the_server_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_SECONDS_TO_ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        began = time.monotonic()
        assert mode_of(tmp_path, mode="online") == "offline"
        assert time.monotonic() - began < 5
    assert "did not answer in 0.2 s" in capsys.readouterr().err


def test_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    assert mode_of(tmp_path, mode="online") == "offline"
    assert "warning: W&B runs offline: no API key" in capsys.readouterr().err
    assert mode_of(tmp_path) == "offline"  # by itself: no warning
    assert "warning" not in capsys.readouterr().err


def test_a_key_of_a_server_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine wandb.example.com login user password x\n")
    assert not module.is_logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.com:8080")
    assert module.is_logged_in()


@pytest.fixture
def refusing_server() -> Iterator[str]:
    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        do_POST = do_GET

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.slow
def test_the_server_refuses(
    refusing_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fresh_wandb: None,
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", refusing_server)
    logger = wandb_logger(save_dir=str(tmp_path), name="run")
    assert logger._wandb_init["mode"] == "online"
    run = logger.experiment
    logger.log_metrics({"loss": 1.0}, step=1)
    run.finish()
    assert "warning: W&B runs offline: " in capsys.readouterr().err
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def records(folder: Path) -> list[Any]:
    """Everything an offline run wrote: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    [path] = (folder / "wandb").glob("offline-run-*/*.wandb")
    content, place, parts, found = path.read_bytes(), 7, b"", []
    block, header = 32768, 7
    while place + header <= len(content):
        if block - place % block < header:  # no room for a header: zeros up to the next block
            place += block - place % block
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + header : place + header + length]
        place += header + length
        if kind in (1, 4):  # a whole record, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


@pytest.mark.slow
def test_what_an_offline_run_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_wandb: None
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = write_run(tmp_path / "run")
    (run / "curves.json").write_text(json.dumps(CURVES))
    write_run_page(run)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    centers = run / "checkpoints" / "best.ckpt.head-1"
    centers.mkdir()
    (centers / ".metadata").write_bytes(b"centers")
    logger = wandb_logger(save_dir=str(run), name="run", log_model=True)
    logger.log_hyperparams({"head": {"name": "arcface"}, "seed": 1, "name": "a-seed1"})
    for step, accuracy in enumerate((0.7, 0.9, 0.8)):
        logger.log_metrics({"train/loss": 2.0 - step, "val/dev/accuracy": accuracy}, step)
    log_page([logger], RunFolder(run))
    logger.experiment.finish()
    found, config = records(run), {}
    # W&B's own process writes the file; on a busy machine it is behind.
    for _ in range(50):
        config = {
            entry.key or "/".join(entry.nested_key): json.loads(entry.value_json)
            for record in found
            for update in (record.run.config.update, record.config.update)
            for entry in update
        }
        if "head.name" in config:
            break
        time.sleep(0.2)
        found = records(run)
    assert config["head.name"] == "arcface"
    assert config["without_seed"].startswith("a-")
    [metric] = [r.metric for r in found if r.metric.name == "val/dev/accuracy"]
    assert metric.summary.max
    assert metric.summary.last
    assert metric.step_metric == "trainer/global_step"
    logged = {
        item.key or "/".join(item.nested_key) for record in found for item in record.history.item
    }
    assert {"train/loss", "val/dev/accuracy"} <= logged
    files = {path.name.split("_")[0] for path in run.rglob("media/html/*")}
    files |= {path.name.split("_")[0] for path in run.rglob("media/html/figures/*")}
    assert {"report", "dev: ROC", "dev: scores"} <= files
    assert any(
        record.request.log_artifact.artifact.type == "model" or record.artifact.type == "model"
        for record in found
    )


def test_seeds_of_the_same_settings_have_a_name_in_common() -> None:
    one = {"name": "a-seed1", "seed": 1, "data": {"seed": 1}, "paths": {"run_dir": "/x"}}
    other = {"name": "a-seed2", "seed": 2, "data": {"seed": 2}, "paths": {"run_dir": "/y"}}
    assert module.without_seed(one) == module.without_seed(other)
    assert module.without_seed(one) != module.without_seed(one | {"lr": 1})


def test_what_goes_wrong_in_wandb_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        id = "x"

        def __getattr__(self, name: str) -> Any:
            raise OSError(28, "No space left on device")

    logger = wandb_logger(save_dir=str(tmp_path), name="run", mode="offline", log_model=True)
    logger._experiment = Broken()
    logger.log_hyperparams({"seed": 1})
    for step in range(3):
        logger.log_metrics({"val/dev/accuracy": 0.5}, step)
    run = write_run(tmp_path / "run")
    write_run_page(run)
    log_page([logger], RunFolder(run))
    printed = capsys.readouterr().err
    assert "W&B did not take the checkpoint: no checkpoint" in printed
    for what in ("settings", "metrics", "the page"):
        assert printed.count(f"W&B did not take {what}: [Errno 28] No space left on device") == 1


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_run_goes_on_without_wandb_when_it_cannot_even_begin(
    mode: str,
    refusing_server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fresh_wandb: None,
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_BASE_URL", refusing_server)
    begin = wandb.init

    def full(**settings: Any) -> Any:
        if settings["mode"] != "disabled":
            raise OSError(28, "No space left on device")
        return begin(**settings)

    monkeypatch.setattr(wandb, "init", full)
    logger = wandb_logger(save_dir=str(tmp_path), name="run", mode=mode)
    logger.log_metrics({"loss": 1.0}, 0)
    assert "warning: W&B runs not at all: [Errno 28]" in capsys.readouterr().err
