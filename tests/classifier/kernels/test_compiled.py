"""What the compiler makes of the kernels, for GPUs that are not here: no spills, tensor cores."""

import os
from pathlib import Path

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from helpers.compiled_kernels import compile_product
from marginface.classifier.kernels.tiles import tile_of
from marginface.classifier.negative_kind import Curve

KINDS = {
    "plain": {},
    "with_a_maximum": {"TOP": True},
    "binary": {"BINARY": True},
    "raised": {"KIND": "raised", "TOP": True},
    "curricular": {"KIND": "curricular", "TOP": True},
    "circle": {"KIND": "circle", "TOP": True, "SLOPE": "of_constant_weight"},
    "power": {"KIND": "power", "BINARY": True},
    "angle": {"KIND": "angle", "TOP": True},
    "squared_angle": {"KIND": "squared_angle", "TOP": True},
    "lengths": {"TOP": True, "X_LENGTHS": True, "W_LENGTHS": True},
}
_SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # of a program, at most
_INSTRUCTION = {80: "mma.sync", 90: "wgmma", 100: "tcgen05.mma"}


def check(kind: str, product: str, kernel: str, capability: int, directory: Path) -> None:
    constants, split = dict(KINDS[kind]), product == "three_products"
    tile = tile_of(
        split=split,
        curve=Curve(constants.get("KIND", "plain")),
        binary=bool(constants.get("BINARY")),
        interpreted=False,
    )
    constants.pop("TOP" if kernel == "weights" else "SLOPE", None)
    made = compile_product(kernel, tile, capability, directory, SPLIT=split, **constants)
    assert made.shared_bytes <= _SHARED_BYTES[capability]
    assert _INSTRUCTION[capability] in made.ptx
    if capability == 90:  # what the tiles were chosen on
        assert made.stack_bytes == 0


@pytest.mark.parametrize("kernel", ["scores", "weights"])
@pytest.mark.parametrize("product", ["float16", "three_products"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_spilled_on_hopper(kind: str, product: str, kernel: str, tmp_path: Path) -> None:
    check(kind, product, kernel, 90, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["scores", "weights"])
@pytest.mark.parametrize("product", ["float16", "three_products"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("capability", [80, 100])
def test_other_gpus(capability: int, kind: str, product: str, kernel: str, tmp_path: Path) -> None:
    check(kind, product, kernel, capability, tmp_path)
