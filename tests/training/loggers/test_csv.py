"""metrics.csv: flushed, one row per step, continued without gaps or doubles."""

from pathlib import Path

import pytest

from marginface.training.loggers import MetricsCsv, wandb_logger
from marginface.training.loggers.wandb import is_logged_in


def test_rows_are_on_disk_at_once_with_all_digits(tmp_path: Path) -> None:
    logger = MetricsCsv(tmp_path / "metrics.csv")
    for step in range(3):
        logger.log_metrics({"train/loss": 0.1 + step}, step)
        lines = (tmp_path / "metrics.csv").read_text().splitlines()
        assert lines[0] == "step,train/loss"
        assert lines[-1] == f"{step},{0.1 + step!r}"
        assert len(lines) == step + 2


def test_validation_joins_the_row_of_its_step(tmp_path: Path) -> None:
    logger = MetricsCsv(tmp_path / "metrics.csv")
    logger.log_metrics({"train/loss": 2.0}, 0)
    logger.log_metrics({"train/loss": 1.0}, 1)
    logger.log_metrics({"val/lfw/accuracy": 0.5}, 1)
    logger.log_metrics({"train/loss": 0.5}, 2)
    assert (tmp_path / "metrics.csv").read_text() == (
        "step,train/loss,val/lfw/accuracy\n0,2.0,\n1,1.0,0.5\n2,0.5,\n"
    )


def test_a_resumed_run_drops_what_it_does_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = MetricsCsv(path)
    for step in range(5):
        first.log_metrics({"train/loss": float(step)}, step)
    with path.open("a") as file:
        file.write("5,")  # killed while writing
    second = MetricsCsv(path)
    second.drop_rows_from(3)
    second.log_metrics({"train/loss": 33.0}, 3)
    assert path.read_text() == "step,train/loss\n0,0.0\n1,1.0\n2,2.0\n3,33.0\n"


def test_wandb_is_offline_without_an_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not is_logged_in()
    logger = wandb_logger(save_dir=str(tmp_path), name="run")
    assert "wandb sync" in capsys.readouterr().out
    identity = (tmp_path / "wandb_id").read_text().strip()
    assert logger.version == identity
    assert wandb_logger(save_dir=str(tmp_path), name="run").version == identity
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert is_logged_in()


def test_wandb_disabled_still_works_with_lightning(tmp_path: Path) -> None:
    logger = wandb_logger(save_dir=str(tmp_path), name="run", mode="disabled")
    logger.log_metrics({"train/loss": 1.0}, 0)
    logger.finalize("success")
