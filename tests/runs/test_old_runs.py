"""Runs of version 0.1: still evaluated, compared and started from; not resumed."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from helpers.old_run import write_old_run
from helpers.runs import compose
from marginface.inference.embedder import load_embedder
from marginface.inference.export_head import export_head
from marginface.runs.comparison import compare_runs
from marginface.training import train
from marginface.utils.errors import InputError


@pytest.fixture
def old_run(run: Path, tmp_path: Path) -> Path:
    return write_old_run(run, tmp_path / "old")


def test_it_is_opened_for_evaluation(run: Path, old_run: Path) -> None:
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(load_embedder(old_run)(images), load_embedder(run)(images))


def test_its_class_centers_are_exported(run: Path, old_run: Path, tmp_path: Path) -> None:
    shape = export_head(old_run, tmp_path / "old.safetensors")
    assert shape == export_head(run, tmp_path / "new.safetensors")
    tensors = []
    for name in ("old", "new"):
        with safe_open(tmp_path / f"{name}.safetensors", "pt") as file:
            tensors.append(file.get_tensor("head.weight"))
    assert torch.equal(*tensors)


def test_a_run_starts_from_its_weights(old_run: Path, tiny_run: list[str], tmp_path: Path) -> None:
    weights = f"backbone.weights={old_run / 'checkpoints' / 'last.ckpt'}"
    settings = [*tiny_run, weights, "trainer.max_steps=1", "optimizer.lr=1e-9"]
    train(compose(*settings, "data.val_identities=0", run_dir=tmp_path / "new"))
    before = torch.load(old_run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    after = torch.load(tmp_path / "new" / "checkpoints" / "last.ckpt", weights_only=True)
    key = next(k for k in before if k.startswith("backbone.") and k.endswith("weight"))
    torch.testing.assert_close(after["state_dict"][key], before[key])


def test_it_is_compared_under_the_new_names(run: Path, old_run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "new")
    table = compare_runs([old_run, tmp_path / "new"])
    names = [str(column.header) for column in table.columns]
    assert "classifier.matmul_precision" in names  # float32 there, auto here
    assert not [n for n in names if "gemm" in n or "_target_" in n]


def test_resuming_it_is_an_error_that_says_what_to_do(old_run: Path, tiny_run: list[str]) -> None:
    settings = [*tiny_run, "trainer.max_steps=3", "data.val_identities=0"]
    with pytest.raises(InputError, match=r"written by marginface 0\.1.*backbone.weights=<file>"):
        train(compose(*settings, run_dir=old_run))
