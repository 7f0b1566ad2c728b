"""Configurations for Python: as on the command line, mistakes included."""

import importlib
from pathlib import Path

import pytest
import yaml

from helpers.paths import ROOT
from marginface.config import compose
from marginface.config.command_line import check_command_line
from marginface.training import train
from marginface.training.config import train_problems
from marginface.utils import renamed
from marginface.utils.errors import InputError
from marginface.utils.nested import flatten


def test_what_the_command_line_gives(tiny_run: list[str], tmp_path: Path) -> None:
    config = compose("train", [*tiny_run, "head=arcface", f"hydra.run.dir={tmp_path / 'run'}"])
    assert config["head"]["name"] == "arcface"
    assert config["paths"]["run_dir"] == str(tmp_path / "run")
    assert "hydra" not in config
    assert train_problems(config) == []


def test_a_run_folder_of_its_own_by_default() -> None:
    folder = Path(compose("train", ["debug=fast"])["paths"]["run_dir"])
    assert folder.is_absolute()
    assert folder.parent.name == "x2softmax-miniresnet8_half-synthetic-seed2048"


def test_python_trains_what_it_composed(tiny_run: list[str], tmp_path: Path) -> None:
    overrides = [*tiny_run, "trainer.max_steps=2", "data.val_identities=0"]
    result = train(compose("train", [*overrides, f"hydra.run.dir={tmp_path}"]))
    assert result["train/loss"] > 0
    assert (tmp_path / "result.json").is_file()


def test_processes_of_a_run_share_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning starts the user's script again, a moment later."""
    first = compose("train", ["seed=1"])["paths"]["run_dir"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert compose("train", ["seed=2"])["paths"]["run_dir"] == first
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert compose("train", ["seed=2"])["paths"]["run_dir"] != first


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("head.scal=3", "unknown key head.scal. Did you mean 'head.scale'?"),
        ("head=arcfase", "unknown head 'arcfase'. Did you mean 'arcface'?"),
        ("classifier.gemm=bfloat16", "classifier.gemm: it was renamed to classifier.matmul_pre"),
    ],
)
def test_mistakes(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compose("train", [override])


@pytest.mark.parametrize("old", renamed._KEYS)
def test_old_keys_name_the_new_one(old: str) -> None:
    new = renamed._KEYS[old]
    for override in (f"{old}=1", f"+{old}=1"):
        with pytest.raises(InputError, match=f"unknown key {old}: it was renamed to {new}"):
            check_command_line("train", [override], train_problems)
    parts = compose("train", ["data=folder", "data.root=x"])  # and the new one is there
    for part in new.split("."):
        parts = parts[part]


def test_old_targets_name_the_new_one() -> None:
    config = compose("train", [])
    config["optimizer"]["_target_"] = "marginface.optimizers.SGD"
    config["callbacks"]["step_log"]["_target_"] = "marginface.callbacks.StepLog"
    found = "\n".join(train_problems(config))
    assert "marginface.optimizers.SGD was renamed to marginface.training.optimizers.SGD" in found
    assert "was renamed to marginface.training.callbacks.step_log.StepLog" in found


@pytest.mark.parametrize(
    "old",
    [
        *renamed._TARGETS,
        "marginface.optimizers.AdamW",
        "marginface.schedules.cosine",
        "marginface.strategies.ClassParallelStrategy",
        "marginface.tracking.MetricsCsv",
        "marginface.protocols.PairsBenchmark",
        "marginface.data.folder.FolderDataset",
        "marginface.data.recordio.RecordIODataset",
        "marginface.data.synthetic.SyntheticFaces",
    ],
)
def test_new_targets_can_be_imported(old: str) -> None:
    new = renamed.new_target(old)
    assert new is not None
    module, _, name = new.rpartition(".")
    assert hasattr(importlib.import_module(module), name)


def test_other_targets_kept_their_name() -> None:
    assert renamed.new_target("marginface.training.optimizers.SGD") is None
    config = compose("train", [])
    config["optimizer"]["_target_"] = "marginface.optimizers.Adam"
    assert "cannot import" in "\n".join(train_problems(config))


def test_a_configuration_of_version_0_1_becomes_one_of_today() -> None:
    """All its keys and targets are in the tables."""
    old = yaml.safe_load((ROOT / "tests" / "runs" / "config_0_1.yaml").read_text())
    settings = ["trainer=cpu", "backbone=vit_tiny", "optimizer=adamw", "logger=csv"]
    today = compose("train", [*settings, "callbacks.progress=null"])
    new = renamed.with_new_names(old)
    came_later = {"classifier.kernel", "trainer.float32_matmul_precision", "plugins"}
    came_later |= {key for key in flatten(today) if key.startswith("callbacks.page.")}
    assert flatten(new).keys() == flatten(today).keys() - came_later
    assert flatten(old).keys() != flatten(new).keys()
    assert train_problems(new) == []
