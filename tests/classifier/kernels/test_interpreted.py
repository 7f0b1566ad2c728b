"""The kernels in Triton's interpreter, on a CPU, against the dense loss in float64.

`make test-kernels` runs this file: the interpreter has to be chosen before Triton is imported, so
these tests have a process of their own.
"""

import os
from pathlib import Path

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1: `make test-kernels`", allow_module_level=True)
pytest.importorskip("triton")

from helpers.kernel_outcomes import (
    WITHOUT_KERNELS,
    Case,
    count_passes,
    errors,
    exact_outcome,
    outcome,
)
from helpers.processes import run_processes
from helpers.small_heads import MAKE_OPTIMIZER, MODES, make_head
from marginface.heads import MarginHead
from marginface.training.optimizers import step_in_backward

pytestmark = pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value")
CHUNKS = {"chunk_mib": 0.012}  # two of 64 classes


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def check(
    case: Case, name: str, mode: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = exact_outcome(case, name, mode)
    passes = count_passes(monkeypatch)
    head = case.head(name, mode, torch.float32, matmul_precision=precision)
    found = errors(outcome(head, False, case.batch()), exact)
    expected = "ChunkedPass" if name in WITHOUT_KERNELS else "KernelPass"
    assert passes == [expected]
    plain = case.head(name, mode, torch.float32, kernel="torch")
    eager = errors(outcome(plain, False, case.batch()), exact)
    for key, error in found.items():
        limit = 4e-3 if precision == "float16" else max(2e-5, 4 * eager[key])
        assert error <= limit, (key, error, eager[key])


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_float32_grade(name: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(Case(options=tuple(CHUNKS.items())), name, mode, "float32", monkeypatch)


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_float16(name: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(Case(options=tuple(CHUNKS.items())), name, mode, "float16", monkeypatch)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize(
    ("rows", "width", "classes"),
    [(1, 16, 2), (7, 20, 33), (33, 48, 64), (16, 16, 32), (17, 17, 65)],
)
def test_sizes(
    rows: int, width: int, classes: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(rows, classes, width, options=tuple(CHUNKS.items()))
    check(case, "x2softmax", "exact", precision, monkeypatch)


CASES = {
    "filter": ("arcface", {}, {"interclass_filtering_threshold": 0.4}),
    "filter_of_changed": ("mv_softmax", {}, {"interclass_filtering_threshold": 0.4}),
    "maximum": ("arcface", {"scale": 200.0}, {}),
    "loss_circle": ("cosface", {"loss": "circle"}, {}),
    "loss_bce": ("x2softmax", {"loss": "bce"}, {}),
    "mv_arc_fixed": ("mv_softmax", {"variant": "arc", "weighting": "fixed"}, {}),
    "one_chunk": ("x2softmax", {}, {"chunk_mib": 64}),
    "sphereface2_t": ("sphereface2", {"t": 2.5}, {}),
}


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("case", CASES)
def test_options(case: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, parameters, options = CASES[case]
    whole = Case(options=tuple((CHUNKS | options).items()), parameters=tuple(parameters.items()))
    if "filter" in case:  # the dense loss has no filter: compare with plain torch in float64
        head = whole.head(name, "exact", torch.float64, kernel="torch")
        head.load_state_dict(whole.head(name, "exact", torch.float32).state_dict())
        exact = outcome(head, False, whole.batch())
        found = whole.head(name, "exact", torch.float32, matmul_precision=precision)
        passes = count_passes(monkeypatch)
        limit = 4e-3 if precision == "float16" else 2e-5
        assert max(errors(outcome(found, False, whole.batch()), exact).values()) < limit
        assert passes == ["KernelPass"]
        unfiltered = Case(options=tuple(CHUNKS.items()), parameters=whole.parameters)
        different = outcome(unfiltered.head(name, "exact", torch.float32), False, whole.batch())
        assert max(errors(different, exact).values()) > 0.01
        return
    check(whole, name, "exact", precision, monkeypatch)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_same_bits_twice(precision: str) -> None:
    case = Case(options=tuple(CHUNKS.items()))
    first, again = (
        outcome(
            case.head("x2softmax", "exact", torch.float32, matmul_precision=precision),
            False,
            case.batch(),
        )
        for _ in range(2)
    )
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("name", ["x2softmax", "softmax", "uniface", "curricularface"])
def test_a_second_backward_pass(name: str, precision: str) -> None:
    case = Case(options=tuple(CHUNKS.items()))
    head = case.head(name, "exact", torch.float32, matmul_precision=precision)
    embeddings, labels = case.batch()
    e = embeddings.float().requires_grad_()
    loss = head(e, labels)
    first = torch.autograd.grad(loss, [e, head.weight], retain_graph=True)
    again = torch.autograd.grad(loss, [e, head.weight])
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 65536.0])
def test_a_scaled_loss_scales_its_gradients(scale: float) -> None:
    """As under GradScaler: gradient weights are brought into float16's range whatever they are."""
    case = Case(options=tuple(CHUNKS.items()))
    head = case.head("arcface", "exact", torch.float32, matmul_precision="float16")
    embeddings, labels = case.batch()
    e = embeddings.float().requires_grad_()
    plain = torch.autograd.grad(head(e, labels), [e, head.weight])
    scaled = torch.autograd.grad(head(e, labels) * scale, [e, head.weight])
    for a, b in zip(plain, scaled, strict=True):
        assert float((a - b / scale).norm() / a.norm()) < 1e-3


def test_no_labels_and_zero_embeddings() -> None:
    case = Case()
    head = case.head("x2softmax", "exact", torch.float32)
    embeddings, labels = case.batch()
    e = embeddings.float().requires_grad_()
    head(e, torch.full_like(labels, -1)).backward()
    assert e.grad is not None
    assert float(e.grad.abs().max()) == 0
    zero = torch.zeros_like(e).requires_grad_()
    loss = head(zero, labels)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(head.weight.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_without_gradients(precision: str) -> None:
    case = Case(options=tuple(CHUNKS.items()))
    head = case.head("x2softmax", "exact", torch.float32, matmul_precision=precision)
    embeddings, labels = case.batch()
    expected = head(embeddings.float(), labels).detach()
    with torch.no_grad():
        torch.testing.assert_close(head(embeddings.float(), labels), expected)
    head.weight.requires_grad_(False)
    e = embeddings.float().requires_grad_()
    head(e, labels).backward()
    assert e.grad is not None
    assert head.weight.grad is None


def test_a_curve_of_ones_own_runs_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from marginface.heads.mv_softmax import MVSoftmax

    class Raised(MVSoftmax):
        def negative_curve(self, cosine: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return torch.where(cosine > target, 1.5 * cosine, cosine)

    case, heads = Case(), []
    for dtype in (torch.float32, torch.float64):
        head = case.head("mv_softmax", "exact", torch.float32).to(dtype)
        heads.append(MarginHead(Raised(), head.centers, head.loss))
    passes = count_passes(monkeypatch)
    found = outcome(heads[0], False, case.batch())
    assert passes == ["ChunkedPass"]
    reason = heads[0].reason_for_torch(torch.device("cpu"), torch.float32)
    assert reason is not None
    assert "no kernel for what" in reason
    assert max(errors(found, outcome(heads[1], True, case.batch())).values()) < 2e-5


@pytest.mark.parametrize("rate", [1.0, 0.3])
@pytest.mark.parametrize("kind", MAKE_OPTIMIZER)
def test_steps_inside_the_backward_pass(kind: str, rate: float) -> None:
    """Three of them, against torch's steps of what plain torch computes in float64."""
    heads = []
    for inside in (True, False):
        case = Case(options=(*CHUNKS.items(), ("sample_rate", rate)))
        dtype = torch.float32 if inside else torch.float64
        kernel = "triton" if inside else "torch"
        head = case.head("arcface", "exact", torch.float32, kernel=kernel)
        heads.append(head.to(dtype))
        optimizer = MAKE_OPTIMIZER[kind](head.parameters())
        if inside:
            begin = step_in_backward(optimizer, head.weight)
            head.centers.step_centers_in_backward = begin
        for step in range(3):
            head.begin_step(step)
            embeddings, labels = case.batch()
            head((1 + step) * embeddings.to(dtype), labels).backward()
            assert (head.weight.grad is None) == inside
            optimizer.step()
            optimizer.zero_grad()
    ours, exact = (head.weight.detach().double() for head in heads)
    assert float((ours - exact).norm() / exact.norm()) < 1e-5
    start = Case().head("arcface", "exact", torch.float32).weight.detach().double()
    assert float((exact - start).norm() / exact.norm()) > 1e-3


def loss_of_shard(rank: int, world: int, name: str, precision: str) -> dict[str, torch.Tensor]:
    whole = Case(options=(*CHUNKS.items(), ("matmul_precision", precision)))
    head = make_head(
        name, "exact", torch.float32, classes=whole.classes, width=whole.width,
        ranks=(rank, world), options=dict(whole.options),
    )  # fmt: skip
    embeddings, labels = whole.batch()
    rows = slice(0, 8) if rank == 0 else slice(8, None)
    e = embeddings[rows].float().requires_grad_()
    loss = head(e, labels[rows])
    loss.backward()
    assert e.grad is not None
    assert head.weight.grad is not None
    return {"loss": loss.detach(), "embeddings": e.grad / world, "weight": head.weight.grad}


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("name", ["x2softmax", "uniface", "curricularface", "sphereface"])
def test_two_shards_are_one_head(name: str, precision: str, tmp_path: Path) -> None:
    parts = run_processes(2, tmp_path, loss_of_shard, name, precision)
    exact = exact_outcome(Case(), name, "exact")
    assert torch.equal(parts[0]["loss"], parts[1]["loss"])
    limit = 4e-3 if precision == "float16" else 2e-5
    joined = {
        "loss": parts[0]["loss"],
        "embeddings": torch.cat([p["embeddings"] for p in parts]),
        "centers.weight": torch.cat([p["weight"] for p in parts]),
    }
    for key, value in joined.items():
        error = (value.double() - exact[key]).norm() / exact[key].norm()
        assert float(error) < limit, key
