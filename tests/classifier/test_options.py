"""Which path and which precision a head computes its loss in."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from helpers.small_heads import make_head
from marginface.classifier import ClassifierOptions
from marginface.classifier.kernels import availability
from marginface.heads import MarginHead, list_heads
from marginface.heads import _kernels as heads_in_kernels
from marginface.training.strategies import with_precision_of
from marginface.utils.errors import InputError

CPU = torch.device("cpu")


def trainer(device: str, precision: str) -> Any:
    return SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device(device)), precision=precision
    )


@pytest.mark.parametrize(
    ("device", "precision", "given", "expected"),
    [
        ("cuda", "bf16-mixed", "auto", "float16"),
        ("cuda", "16-mixed", "auto", "float16"),
        ("cuda", "32-true", "auto", "float32"),
        ("cpu", "bf16-mixed", "auto", "float32"),
        ("cuda", "bf16-mixed", "float32", "float32"),
        ("cuda", "bf16-mixed", "bfloat16", "bfloat16"),
    ],
)
def test_what_auto_precision_is(device: str, precision: str, given: Any, expected: str) -> None:
    options = with_precision_of(
        ClassifierOptions(matmul_precision=given), trainer(device, precision)
    )
    assert options.product_precision == expected


def test_a_cpu_has_no_kernels() -> None:
    head = make_head("x2softmax", dtype=torch.float32)
    reason = head.reason_for_torch(CPU, torch.float32)
    assert reason == "the kernels are for NVIDIA GPUs, this is a cpu"


def test_asking_for_kernels_where_none_run_is_an_error() -> None:
    head = make_head("x2softmax", dtype=torch.float32, options={"kernel": "triton"})
    with pytest.raises(
        InputError, match=r"classifier.kernel=triton: the kernels are for NVIDIA GPUs.*=auto"
    ):
        head(torch.randn(4, 16), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("name", list_heads())
def test_which_heads_have_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads_in_kernels, "problem_of_device", lambda device: None)

    def reason(head: MarginHead) -> str | None:
        return head.reason_for_torch(CPU, torch.float32)

    found = reason(make_head(name, dtype=torch.float32))
    expected = {
        "subcenter_arcface": "no kernel for 3 centers of a class",
        "q_margin": "no kernel for loss alpha_divergence",
    }
    assert found == expected.get(name)
    if found is None:
        torch_only = make_head(name, dtype=torch.float32, options={"kernel": "torch"})
        assert reason(torch_only) == "classifier.kernel=torch"
        bfloat16 = make_head(name, dtype=torch.float32, options={"matmul_precision": "bfloat16"})
        assert "no kernel for classifier.matmul_precision=bfloat16" in str(reason(bfloat16))
        assert "float64" in str(make_head(name).reason_for_torch(CPU, torch.float64))


def test_a_gpu_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    problem = availability.problem_of_device.__wrapped__(torch.device("cuda"))
    assert problem is not None
    assert "Tesla T4 has compute capability 7.5, the kernels need 8.0" in problem


def test_triton_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(availability.importlib.util, "find_spec", lambda name: None)
    problem = availability.problem_of_device.__wrapped__(torch.device("cuda"))
    assert problem is not None
    assert "pip install triton" in problem


@pytest.mark.parametrize("name", ["x2softmax", "uniface", "curricularface"])
def test_float16_products_in_plain_torch(name: str) -> None:
    """As exact as on a GPU, whatever the loss is multiplied by."""
    gradients = []
    for precision, scale in (("float32", 1.0), ("float16", 1.0), ("float16", 2.0**-20)):
        options = {"matmul_precision": precision}
        head = make_head(name, "exact", torch.float32, width=512, options=options)
        embeddings = torch.randn(12, 512, generator=torch.Generator().manual_seed(1))
        embeddings.requires_grad_()
        (head(embeddings, torch.arange(12)) * scale).backward()
        assert embeddings.grad is not None
        assert head.weight.grad is not None
        gradients.append((embeddings.grad / scale, head.weight.grad / scale))
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            assert 0 < float((a - b).norm() / a.norm()) < 3e-3


def test_labels_that_change_after_they_were_looked_at() -> None:
    head = make_head("arcface", "exact", torch.float32)
    embeddings, labels = torch.randn(6, 16), torch.arange(6)
    head.centers.know_labels(labels, labels)
    labels[:2] = -1
    expected = make_head("arcface", "exact", torch.float32)(embeddings[2:], labels[2:])
    torch.testing.assert_close(head(embeddings, labels), expected)
    head.centers.know_labels(labels, labels)
    labels[0] = -5
    with pytest.raises(InputError, match="labels from -5 to 5"):
        head(embeddings, labels)
