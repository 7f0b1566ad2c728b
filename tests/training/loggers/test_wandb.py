"""W&B never stops a run: without a key, a server or its consent it goes on offline."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from marginface.training.loggers import wandb as module
from marginface.training.loggers import wandb_logger


@pytest.fixture(autouse=True)
def logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_MODE", raising=False)


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
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", refusing_server)
    import wandb

    if wandb.run is not None:  # of a training in another test
        wandb.finish()
    logger = wandb_logger(save_dir=str(tmp_path), name="run")
    assert logger._wandb_init["mode"] == "online"
    run = logger.experiment
    logger.log_metrics({"loss": 1.0}, step=1)
    run.finish()
    assert "warning: W&B runs offline: " in capsys.readouterr().err
    assert list((tmp_path / "wandb").glob("offline-run-*"))
