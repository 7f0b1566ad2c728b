"""The kernels on a GPU: right for every head, the same bits twice, no wait for the device."""

import pytest
import torch

from helpers.kernel_outcomes import (
    WITHOUT_KERNELS,
    Case,
    count_passes,
    errors,
    exact_outcome,
    outcome,
)
from helpers.small_heads import MODES
from marginface.heads import list_heads

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
LARGE = Case(300, 5003, 512, device="cuda", options=(("chunk_mib", 4.0),))


@pytest.fixture(autouse=True)
def _ieee_products() -> None:
    torch.set_float32_matmul_precision("highest")  # of what the kernels are compared with


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_every_head(name: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = exact_outcome(LARGE, name, mode)
    passes = count_passes(monkeypatch)
    precisions = {"float16": 3e-3} | ({"float32": 3e-5} if mode == "exact" else {})
    for precision, limit in precisions.items():
        head = LARGE.head(name, mode, torch.float32, matmul_precision=precision)
        found = errors(outcome(head, False, LARGE.batch()), exact)
        assert max(found.values()) < limit, (precision, found)
    assert set(passes) == {"ChunkedPass" if name in WITHOUT_KERNELS else "KernelPass"}


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(
    ("rows", "width", "classes"),
    [(1, 16, 2), (7, 20, 33), (129, 48, 64), (17, 17, 65), (64, 96, 4097)],
)
def test_sizes(rows: int, width: int, classes: int, precision: str) -> None:
    case = Case(rows, classes, width, device="cuda")
    exact = exact_outcome(case, "x2softmax", "exact")
    head = case.head("x2softmax", "exact", torch.float32, matmul_precision=precision)
    limit = 4e-3 if precision == "float16" else 3e-5
    assert max(errors(outcome(head, False, case.batch()), exact).values()) < limit


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_same_bits_twice(precision: str) -> None:
    heads = [
        LARGE.head("x2softmax", "exact", torch.float32, matmul_precision=precision)
        for _ in range(2)
    ]
    first, again = (outcome(head, False, LARGE.batch()) for head in heads)
    assert all(torch.equal(first[key], again[key]) for key in first)


QUEUED = set(list_heads()) - WITHOUT_KERNELS - {"dynarcface"}


@pytest.mark.parametrize("name", sorted(QUEUED))
def test_nothing_waits_for_the_device(name: str) -> None:
    """With labels that were looked at on the host a step of the head only queues work."""
    case = Case(64, 1000, 64, device="cuda")
    head = case.head(name, "exact", torch.float32)
    embeddings, labels = case.batch()
    e, labels = embeddings.float().requires_grad_(), labels.clamp(min=0)
    head(e, labels).backward()  # compiles
    head.centers.know_labels(labels, labels.cpu())
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        head(e, labels).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
