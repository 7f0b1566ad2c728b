"""What a benchmark ran on, for its result file."""

import os
import platform
import re
from datetime import date
from pathlib import Path
from typing import Any

import torch


def hardware() -> dict[str, Any]:
    """What the numbers were measured on."""
    models = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "date": date.today().isoformat(),
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def card_name() -> str:
    """The GPU, or "cpu", as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", (hardware()["gpu"] or "cpu").lower()).strip("-")
