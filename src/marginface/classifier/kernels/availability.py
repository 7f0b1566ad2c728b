"""Whether the GPU kernels can run where a tensor is."""

import importlib.util
import os
import shutil
from functools import cache

import torch


@cache
def problem_of_device(device: torch.device) -> str | None:
    """Why no kernel runs on a device, or None."""
    if device.type != "cuda":
        if os.environ.get("TRITON_INTERPRET") == "1" and device.type == "cpu":
            return _problem_of_triton()
        return f"the kernels are for NVIDIA GPUs, this is a {device.type}"
    if torch.version.hip is not None:
        return "the kernels are for NVIDIA GPUs, this is one of AMD's"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        name = torch.cuda.get_device_name(device)
        return f"{name} has compute capability {major}.{minor}, the kernels need 8.0 (A100) or more"
    return _problem_of_triton()


def _problem_of_triton() -> str | None:
    if os.environ.get("TRITON_INTERPRET") != "1" and not (
        os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang")))
    ):
        return "Triton needs a C compiler, and there is no cc, gcc or clang (apt install gcc)"
    if importlib.util.find_spec("triton") is None:
        return (
            "triton is not installed (pip install triton; torch's CUDA wheels for Linux bring it)"
        )
    return None
