"""Launches compiled kernels without looking at every argument again."""

import os
from typing import Any

from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


class Launcher:
    """A kernel whose compiled forms are kept by what they were compiled for.

    Triton looks at all arguments of every launch to find the compiled form. Here the constants say
    it, with what is left of Triton's own choices: whether pointers are divisible by 16. Numbers
    must keep their types, and a kernel must name those that may be any in `do_not_specialize`.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self._compiled: dict[tuple[Any, ...], Any] = {}

    def __call__(
        self,
        programs: int,
        tensors: tuple[Tensor, ...],
        numbers: tuple[int | float, ...],
        constants: tuple[Any, ...],
        warps: int = 4,
        stages: int = 3,
    ) -> None:
        """Run so many programs; the arguments are in the kernel's order."""
        grid = (programs, 1, 1)
        alignment = [tensor.data_ptr() % 16 for tensor in tensors]
        key = (constants, warps, stages, tensors[0].device.index, *alignment)
        compiled = self._compiled.get(key)
        if compiled is not None:
            compiled[grid](*tensors, *numbers, *constants)
            return
        compiled = self.function[grid](
            *tensors, *numbers, *constants, num_warps=warps, num_stages=stages
        )
        if not INTERPRETED:
            self._compiled[key] = compiled
