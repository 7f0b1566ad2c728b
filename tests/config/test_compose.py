"""Configurations for Python: as on the command line, mistakes included."""

import importlib
from pathlib import Path

import pytest

from marginface.config import compose
from marginface.config.command_line import check_command_line
from marginface.training import train
from marginface.training.config import train_problems
from marginface.utils import renamed
from marginface.utils.errors import InputError


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


def test_every_new_target_can_be_imported() -> None:
    for old in [*renamed._TARGETS, *(f"{module}.SGD" for module in renamed._MODULES)]:
        new = renamed.new_target(old)
        assert new is not None
        module, _, name = new.rpartition(".")
        imported = importlib.import_module(module)
        assert old not in renamed._TARGETS or hasattr(imported, name)
    assert renamed.new_target("marginface.training.optimizers.SGD") is None
