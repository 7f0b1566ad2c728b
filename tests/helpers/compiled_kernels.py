"""Compiles the kernels for GPUs that are not there, and reads what the compiler made of them."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from marginface.classifier.kernels import products
from marginface.classifier.kernels.tiles import Tile
from marginface.classifier.negative_kind import Curve, Slope

_HALF = ("Q", "Ql", "W", "Wl", "P", "Pl")
_WHOLE = ("Position",)
_INTEGERS = ("R", "n", "start", "stride", "row_tiles")
_FLOATS = ("scale", "first", "second", "above")


@dataclass(frozen=True)
class Compiled:
    """What a kernel needs of a multiprocessor."""

    registers: int
    stack_bytes: int  # spilled registers are there
    shared_bytes: int
    ptx: str


def compile_product(
    name: str, tile: Tile, capability: int, directory: Path, *, width: int = 512, **constants: Any
) -> Compiled:
    """Compile `scores` or `weights` for a compute capability such as 90.

    Args:
        constants: SPLIT, KIND, BINARY and so on, where they are not the plain ones.
    """
    function = getattr(products, name)
    given = {
        "D": width, "SPLIT": False, "KIND": Curve.PLAIN.value, "SLOPE": Slope.EXACT.value,
        "BINARY": False, "TOP": False, "X_LENGTHS": False, "W_LENGTHS": False, "FILTER": False,
        "BB": tile.rows, "BN": tile.classes, "BK": tile.columns,
    } | constants  # fmt: skip
    signature, constexprs, attributes = {}, {}, {}
    for number, argument in enumerate(function.arg_names):
        if argument in given:
            signature[argument], constexprs[(number,)] = "constexpr", given[argument]
        elif argument in _INTEGERS:
            signature[argument] = "i32"
        elif argument in _FLOATS:
            signature[argument] = "fp32"
        else:
            kind = "fp16" if argument in _HALF else "i64" if argument in _WHOLE else "fp32"
            signature[argument] = f"*{kind}"
            attributes[(number,)] = [["tt.divisibility", 16]]
        if argument == "stride":
            attributes[(number,)] = [["tt.divisibility", 16]]
    made = triton.compile(
        ASTSource(function, signature, constexprs, attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": tile.warps, "num_stages": tile.stages},
    )
    cubin = directory / "kernel.cubin"
    cubin.write_bytes(made.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    usage = subprocess.run(
        [tool, "-res-usage", cubin], capture_output=True, text=True, check=True
    ).stdout
    registers, stack = (int(re.findall(rf"{key}:(\d+)", usage)[-1]) for key in ("REG", "STACK"))
    return Compiled(registers, stack, made.metadata.shared, made.asm["ptx"])
