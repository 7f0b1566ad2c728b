"""Class centers as a safetensors file."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from helpers.runs import compose
from marginface.inference.export_head import export_head
from marginface.training.run import train
from marginface.utils.errors import InputError, MissingInputError


@pytest.mark.parametrize("apart", [[], ["classifier.separate_file_above_mib=0.001"]])
def test_centers_of_a_run(tiny_run: list[str], tmp_path: Path, apart: list[str]) -> None:
    run = [*tiny_run, *apart, "head=subcenter_arcface", "trainer.max_steps=2"]
    run += ["async_checkpoints=true", "callbacks.checkpoint.every_n_train_steps=1"]
    train(compose(*run, run_dir=tmp_path))
    folders = list((tmp_path / "checkpoints").glob("last.ckpt.head-*"))
    assert len(folders) == len(apart)
    target = tmp_path / "centers.safetensors"
    assert export_head(tmp_path, target) == (33, 512)
    with safe_open(target, "pt") as file:
        centers = file.get_tensor("head.weight")
        assert file.metadata() == {
            "head": "subcenter_arcface", "num_classes": "11", "centers_per_class": "3",
        }  # fmt: skip
    names = (tmp_path / "centers.identities.txt").read_text().splitlines()
    assert names == (tmp_path / "identities.txt").read_text().splitlines()
    assert len(set(names)) == 11
    assert centers.norm(dim=1).min() > 0
    with pytest.raises(InputError, match="exists and would be overwritten"):
        export_head(tmp_path, target)
    unit = tmp_path / "unit.safetensors"
    export_head(tmp_path / "checkpoints" / "last.ckpt", unit, normalize=True)
    with safe_open(unit, "pt") as file:
        torch.testing.assert_close(
            file.get_tensor("head.weight"), torch.nn.functional.normalize(centers)
        )
    # What was trained is what the next start continues from.
    goes_on = train(compose(*run[:-2], "trainer.max_steps=3", run_dir=tmp_path))
    assert "train/loss" in goes_on


def test_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no checkpoint .*last.ckpt"):
        export_head(tmp_path, tmp_path / "a.safetensors")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="holds no class centers"):
        export_head(tmp_path / "other.ckpt", tmp_path / "a.safetensors")
