"""Finds where the host would wait for a GPU, on a machine without one."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import lightning
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import marginface

# What is looked at there is on the host whatever the device is: batches before they are copied,
# seeds, image indices, and the loss of the progress bar, which StepLog gives to Lightning on the
# host (a test on a GPU sees to it).
ON_THE_HOST = {
    "augmentation.py",
    "convert_tensors_to_scalars",
    "hash_bits",
    "image_dataset.py",
    "know_labels",
    "late_numbers.py",
    "loader.py",
    "on_train_batch_start",
}
_WAITS = (
    "_local_scalar_dense", "nonzero", "unique", "masked_select", "aten._coalesce", "aten.equal",
    "aten.bincount", "aten.repeat_interleave.Tensor",
)  # fmt: skip
# Their result is on the host; on a CPU they are no operations.
_METHODS = ("tolist", "cpu", "item", "numpy")
_COPIES = (torch.ops.aten._to_copy, torch.ops.aten.copy_)
_LOOKED_AT = tuple(package.__path__[0] for package in (marginface, lightning))
_INDEXED = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_)


class Waits(TorchDispatchMode):
    """Where in marginface and Lightning operations are called whose result the host needs.

    On tensors of `FakeTensorMode` also what is sent to a device and not queued.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._methods = {name: getattr(torch.Tensor, name) for name in _METHODS}

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        if _counts_a_mask(function, arguments) or any(wait in str(function) for wait in _WAITS):
            self.note(str(function))
        result = function(*arguments, **(named or {}))
        self._look_for_copies(function, arguments, named or {}, result)
        return result

    def _look_for_copies(
        self, function: Any, arguments: Any, named: dict[str, Any], result: Any
    ) -> None:
        packet = function.overloadpacket
        flat = [*arguments, *(arguments[1] if packet in _INDEXED else []), result]
        tensors = [value for value in flat if isinstance(value, torch.Tensor)]
        # One number on the host is an argument of a launch, unless it is what is copied.
        devices = {t.device.type for t in tensors if t.ndim or packet in _COPIES}
        if len(devices) > 1 and not named.get("non_blocking"):
            self.note(f"{function} between {sorted(devices)}")

    def __enter__(self) -> Self:
        for name, method in self._methods.items():
            setattr(torch.Tensor, name, self._noted(name, method))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for name in self._methods:
            delattr(torch.Tensor, name)  # what is there is of a class below

    def _noted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any, **named: Any) -> Any:
            self.note(name)
            return method(*given, **named)

        return noted

    def note(self, what: str) -> None:
        frames = traceback.extract_stack()
        here = [f for f in frames if f.filename.startswith(_LOOKED_AT)]
        names = {name for f in here for name in (Path(f.filename).name, f.name)}
        if here and not names & ON_THE_HOST:
            self.found.add(f"{what} at {here[-1].filename}:{here[-1].lineno}")


def _counts_a_mask(function: Any, arguments: Any) -> bool:
    """An index that is a mask is counted first, as nonzero is."""
    if function.overloadpacket not in _INDEXED:
        return False
    if function.overloadpacket is not torch.ops.aten.index:
        tensor, _, value, *_ = arguments
        if value.ndim == 0 and (tensor.device.type, value.device.type) == ("cuda", "cpu"):
            return False  # torch fills with a number of the host where the mask says so
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in arguments[1])


def say_it_is_on_a_gpu(network: nn.Module) -> None:
    """Replace all tensors of a network, within `FakeTensorMode`, by such without values."""
    for module in network.modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[key] = nn.Parameter(torch.empty_like(parameter, device="cuda"))
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = torch.empty_like(buffer, device="cuda")
