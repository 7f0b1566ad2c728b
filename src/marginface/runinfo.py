"""The run folder and its metadata: what was run, on what, and whether it may go on."""

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from marginface.errors import InputError
from marginface.files import atomic_write, write_json

PACKAGES = ("marginface", "torch", "torchvision", "lightning", "timm", "hydra-core", "numpy")
# Keys that say how a run is carried out, not what it computes; a resumed run may change them.
CARRIED_OUT_BY = (
    "trainer", "callbacks", "logger", "paths", "resume", "name", "validate_untrained",
    "compile", "gradient_checkpointing", "asynchronous_checkpoints", "keep_freed_memory",
    "data.num_workers", "data.eval_batch_size", "data.root", "data.dataset.root", "data.pairs",
    "classifier.memory_mib", "classifier.apart_above_mib", "classifier.optimizer_in_backward",
)  # fmt: skip


class RunFolder:
    """A run on disk: its config, runinfo.json, checkpoints, metrics.csv, result.json, figures."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.runinfo = self.path / "runinfo.json"
        self.last = self.path / "checkpoints" / "last.ckpt"
        self.result = self.path / "result.json"
        self.figures = self.path / "figures"

    def read_result(self) -> dict[str, float]:
        """The flat metrics written so far."""
        return json.loads(self.result.read_text()) if self.result.is_file() else {}

    def add_result(self, metrics: dict[str, float]) -> None:
        """Add flat metrics to result.json."""
        write_json(self.result, self.read_result() | metrics)

    def begin(self, config: dict[str, Any], info: dict[str, Any]) -> None:
        """Write what is run; a resumed run keeps the list of earlier starts."""
        starts = json.loads(self.runinfo.read_text())["starts"] if self.runinfo.is_file() else []
        starts.append({"command": shlex.join(sys.argv), "world_size": info["world_size"]})
        write_json(self.runinfo, info | {"starts": starts})
        with atomic_write(self.config, "w") as file:
            yaml.safe_dump(config, file, sort_keys=False)


def collect(config: dict[str, Any], data: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """Everything needed to know later what a run was."""
    lock = Path("requirements.lock")
    return {
        "command": shlex.join(sys.argv),
        "seed": config["seed"],
        "git": _git(),
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "data": data,
        **facts,
    }


def check_same_run(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """InputError that lists every setting by which two runs are not the same one.

    Args:
        path: where `before` comes from, for the message.
        before, now: descriptions with "config" and "data" as stored in a checkpoint.
    """
    old, new = (_settings(description) for description in (before, now))
    changed = [
        f"{key}: {old.get(key, 'absent')} there, {new.get(key, 'absent')} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise InputError(
            f"{path} belongs to another run ({'; '.join(changed)}). Use the same settings to "
            "go on, another hydra.run.dir for a new run, or backbone.weights=<file> to start from "
            "its weights"
        )


def _settings(description: dict[str, Any]) -> dict[str, Any]:
    flat = flatten({**description["config"], "data fingerprint": description["data"]})
    return {
        key: value
        for key, value in flat.items()
        if not any(key == k or key.startswith(f"{k}.") for k in CARRIED_OUT_BY)
    }


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{a: {b: 1}} to {"a.b": 1}."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in flatten(branch, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def _git() -> dict[str, Any] | None:
    """Commit and whether the code of this package differs from it; None outside a checkout."""
    where = Path(__file__).parent

    def run(*arguments: str) -> str:
        command = ["git", "-C", str(where), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"sha": run("rev-parse", "HEAD"), "dirty": bool(run("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
