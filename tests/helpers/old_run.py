"""What version 0.1 left on disk, made from a run of today."""

import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from marginface.utils import renamed


def _old_names(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    keys = {new: old for old, new in renamed._KEYS.items()}
    targets = {new: old for old, new in renamed._TARGETS.items()}
    modules = {new: old for old, new in renamed._MODULES.items()}
    old = {}
    for key, value in config.items():
        name = keys.get(prefix + key, prefix + key).removeprefix(prefix)
        if isinstance(value, dict):
            value = _old_names(value, f"{prefix}{key}.")
        elif key == "_target_":
            module, _, last = value.rpartition(".")
            value = targets.get(value, f"{modules.get(module, module)}.{last}")
        old[name] = value
    return old


def write_old_run(run: Path, folder: Path) -> Path:
    """A run folder as version 0.1 wrote it, with the weights of `run`."""
    shutil.copytree(run, folder)
    config = _old_names(yaml.safe_load((run / "config.yaml").read_text()))
    del config["classifier"]["kernel"], config["trainer"]["float32_matmul_precision"]  # came later
    assert config["classifier"]["gemm"] == "auto"
    config["classifier"]["gemm"] = "float32"
    assert config["optimizer"]["_target_"] == "marginface.optimizers.SGD"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    path = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    state = checkpoint["state_dict"]
    state["head.weight"] = state.pop("head.centers.weight")
    checkpoint["marginface"] = {
        "description": {"config": config, "data": checkpoint["marginface"]["description"]["data"]},
        "accumulate": 1,
        "head": checkpoint["marginface"]["head"],
    }
    torch.save(checkpoint, path)
    return folder
