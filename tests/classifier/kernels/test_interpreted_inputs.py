"""What heads may be given and may be, in the kernels: layouts, learned curves, late changes.

`make test-kernels` runs this file: the interpreter has to be chosen before Triton is imported, so
these tests have a process of their own.
"""

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1: `make test-kernels`", allow_module_level=True)
pytest.importorskip("triton")

from helpers.kernel_outcomes import (
    Case,
)
from helpers.small_heads import MAKE_OPTIMIZER, make_head
from marginface.classifier.chunked_pass import PassInputs
from marginface.classifier.kernel_inputs import Logits
from marginface.classifier.kernels import launch
from marginface.classifier.kernels.kernel_pass import KernelPass, prepare_rows
from marginface.classifier.losses import Circle
from marginface.classifier.losses.cross_entropy import LogSumExp
from marginface.classifier.negative_kind import PLAIN
from marginface.heads import MarginHead
from marginface.heads.cosface import CosFace
from marginface.training.optimizers import step_in_backward

pytestmark = pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value")
CHUNKS = {"chunk_mib": 0.012}  # two of 64 classes


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_labels_of_any_layout_and_type() -> None:
    case = Case()
    head = case.head("arcface", "exact", torch.float32)
    embeddings, labels = case.batch()
    e = embeddings.float()
    expected = head(e, labels)
    spread = torch.stack([labels, labels + 7], 1)[:, 0]
    assert not spread.is_contiguous()
    assert torch.equal(head(e, spread), expected)
    assert torch.equal(head(e, labels.int()), expected)


def test_a_parameter_that_a_curve_learns() -> None:
    class Learned(CosFace):
        def __init__(self) -> None:
            super().__init__(margin_gradient="exact")
            self.m = torch.nn.Parameter(torch.tensor(0.3))

        def curve(self, cosine: torch.Tensor) -> torch.Tensor:
            return cosine - self.m

    case, gradients = Case(), []
    for kernel in ("auto", "torch"):
        plain = case.head("cosface", "exact", torch.float32, kernel=kernel)
        head = MarginHead(Learned(), plain.centers, plain.loss)
        embeddings, labels = case.batch()
        head(embeddings.float(), labels).backward()
        gradients.append(head.margin.m.grad)
    assert gradients[0] is not None
    torch.testing.assert_close(*gradients)


def test_a_loss_with_a_curve_of_its_own_runs_in_torch() -> None:
    class Other(Circle):
        def negative_curve(self, cosine: torch.Tensor) -> torch.Tensor:
            return 0.5 * super().negative_curve(cosine)

    plain = Case().head("cosface", "exact", torch.float32)
    head = MarginHead(plain.margin, plain.centers, Other(64.0))
    reason = head.reason_for_torch(torch.device("cpu"), torch.float32)
    assert reason is not None
    assert "negative_kind" in reason


def test_what_changes_before_the_backward_pass_is_noticed() -> None:
    case = Case()
    head = case.head("arcface", "exact", torch.float32)
    embeddings, labels = case.batch()
    labels = labels.clamp(min=0)  # rows that are left out would make a copy of the others
    leaf = embeddings.float().requires_grad_()
    moved = 1 * leaf
    loss = head(moved, labels)
    with torch.no_grad():
        moved.mul_(3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    optimizer = MAKE_OPTIMIZER["sgd"](head.parameters())
    head.centers.step_centers_in_backward = step_in_backward(optimizer, head.weight)
    loss = head(leaf, labels)
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("name", ["arcface", "magface", "uniface"])
def test_inference_mode(name: str) -> None:
    case = Case()
    head = case.head(name, "exact", torch.float32).eval()
    embeddings, labels = case.batch()
    expected = head(embeddings.float(), labels).detach()
    with torch.inference_mode():
        torch.testing.assert_close(head(embeddings.float(), labels), expected)


def test_a_shard_without_classes() -> None:
    """Of inner products, whose longest center is asked for."""
    case = Case(classes=9)
    head = make_head("softmax", "exact", torch.float32, classes=9, width=24, ranks=(7, 8))
    assert len(head.weight) == 0
    vectors = case.batch()[0].float()
    chunks = head.centers.chunks(torch.float32, len(vectors), normalized=False)
    rows = prepare_rows(
        vectors, torch.zeros(len(vectors), dtype=torch.int64), chunks,
        row_lengths=True, center_lengths=True,
    )  # fmt: skip
    inputs = PassInputs(chunks, LogSumExp(), None)
    logits = Logits(1.0, PLAIN, False, True, True, None)
    the_pass = KernelPass(inputs, logits, rows, torch.empty(0, 24))
    the_pass.reduce()
    ones = torch.ones(len(vectors))
    of_vectors, _ = the_pass.gradients(ones, ones, None, None)
    assert torch.equal(of_vectors, torch.zeros_like(vectors))


@pytest.mark.parametrize("name", ["x2softmax", "uniface"])
def test_backward_inside_autocast(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would round the operands of products to bfloat16."""
    case, gradients = Case(), []
    seen: list[bool] = []
    product = launch.product

    def watched(*arguments: torch.Tensor, **named: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return product(*arguments, **named)

    monkeypatch.setattr(launch, "product", watched)
    for inside in (False, True):
        head = case.head(name, "exact", torch.float32)
        embeddings, labels = case.batch()
        e = embeddings.float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
            head(e, labels).backward()
        gradients.append([e.grad, head.weight.grad])
    assert seen
    assert not any(seen)
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
