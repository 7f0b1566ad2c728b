"""The fused loss is the dense one, for every head: loss, all gradients, state."""

from typing import Any

import pytest
import torch
from torch import Tensor

from marginface.classifier import ClassifierOptions, dense_loss
from marginface.heads import create_head, head_defaults, list_heads
from marginface.heads.base import MarginHead

B, C, D = 12, 23, 16
MODES = [
    (name, mode)
    for name in list_heads()
    for mode in ("straight_through", "exact")
    if mode == "exact" or "margin_gradient" in head_defaults(name)
]
SMALL = ClassifierOptions(memory_mib=0.001)  # a class or two at a time


def make(name: str, mode: str, dtype: torch.dtype = torch.float64, **more: Any) -> MarginHead:
    torch.manual_seed(0)
    if "margin_gradient" in head_defaults(name):
        more["margin_gradient"] = mode
    head = create_head(name, embedding_size=D, num_classes=C, **more).to(dtype)
    with torch.no_grad():
        head.weight.mul_(100)
    return head


def batch(rows: int = B, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    embeddings = 5 * torch.randn(rows, D, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, C, (rows,), generator=generator)
    labels[1], labels[2], labels[rows - 1] = 4, 4, -1  # a class twice, a row without a label
    return embeddings.to(dtype), labels


def outcome(head: MarginHead, loss: Any, rows: int = B) -> dict[str, Tensor]:
    embeddings, labels = batch(rows, head.weight.dtype)
    embeddings.requires_grad_()
    value = loss(head, embeddings, labels)
    value.backward()
    gradients = {f"d{key}": p.grad for key, p in head.named_parameters()}
    found = {"loss": value.detach(), "dembeddings": embeddings.grad, **gradients}
    assert all(tensor is not None for tensor in found.values())
    return {**found, **dict(head.named_buffers())}


def call(head: MarginHead, embeddings: Tensor, labels: Tensor) -> Tensor:
    return head(embeddings, labels)


@pytest.mark.parametrize(("name", "mode"), MODES)
@pytest.mark.parametrize("rows", [B, 2 * D])  # similarities kept, computed again
def test_equals_dense_in_float64(name: str, mode: str, rows: int) -> None:
    head = make(name, mode)
    head.options = SMALL
    found, expected = outcome(head, call, rows), outcome(make(name, mode), dense_loss, rows)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        scale = float(value.abs().max()) + 1e-30
        assert float((found[key] - value).abs().max()) / scale < 1e-10, key


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_float32_equals_float64(name: str, mode: str) -> None:
    head, precise = make(name, mode, torch.float32), make(name, mode)
    if name.startswith("elasticface"):
        precise.load_state_dict(head.state_dict())
    precise.weight.data = head.weight.data.double()
    embeddings, labels = batch(dtype=torch.float32)
    values = []
    for h in (head, precise):
        e = embeddings.to(h.weight.dtype).detach().clone().requires_grad_()
        loss = h(e, labels)
        loss.backward()
        values.append([loss.detach().double(), e.grad.double(), h.weight.grad.double()])  # type: ignore[union-attr]
    for found, expected in zip(*values, strict=True):
        scale = float(expected.abs().max()) + 1e-30
        assert float((found - expected).abs().max()) / scale < 2e-5
