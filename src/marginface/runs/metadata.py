"""What a run was made with: versions, git, machine, command."""

import hashlib
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("marginface", "torch", "torchvision", "lightning", "timm", "hydra-core", "numpy")


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
