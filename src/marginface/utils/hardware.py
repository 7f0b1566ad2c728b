"""What a device can do, and settings of its memory."""

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h


def has_bfloat16(device: torch.device) -> bool:
    """Whether 16-bit products are fast there: on every GPU, on CPUs with instructions for them."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def machine() -> dict[str, Any]:
    """Processor, memory and GPUs of this machine, in words and numbers."""
    names = [
        line.partition(":")[2].strip()
        for line in _lines("/proc/cpuinfo")
        if line.startswith("model name")
    ]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "host": platform.node(),
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def queue_to(device: torch.device, tensor: Tensor) -> Tensor:
    """A copy on a device that the host does not wait for."""
    if device.type != "cuda":  # on MPS such copies race (pytorch issue 83015)
        return tensor.to(device)
    if tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class QueuedTensors(TorchFunctionMode):
    """While it is entered, numbers that other code makes a tensor of on a device are queued to it.

    `torch.tensor(numbers, device="cuda")` waits for the GPU.
    """

    def __torch_function__(
        self, function: Any, types: Any, given: Any = (), named: Any = None
    ) -> Any:
        named = named or {}
        device = named.get("device")
        if function is torch.tensor and device is not None:
            return queue_to(torch.device(device), function(*given, **{**named, "device": "cpu"}))
        return function(*given, **named)


def keep_freed_memory() -> None:
    """Have malloc keep large blocks for the next step instead of giving them back to the system.

    What a step frees is what the next one needs; fetched from the system again, every page of it is
    cleared and mapped anew. Cannot be undone within a process, which from then on holds as much
    memory as it ever needed. Does nothing without glibc (mallopt(3)).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
