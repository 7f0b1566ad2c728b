"""The fused loss is the dense one, for every head: loss, all gradients, state."""

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.small_heads import MODES, SMALL, B, C, D, cosines, make_batch, make_head, state_of
from marginface.classifier import fused
from marginface.classifier.nearest import predictions
from marginface.heads import Margin, MarginHead, list_heads
from marginface.utils.errors import InputError


def outcome(head: MarginHead, loss: Any, rows: int = B) -> dict[str, Tensor]:
    embeddings, labels = make_batch(rows, head.weight.dtype)
    embeddings.requires_grad_()
    value = loss(head, embeddings, labels)
    value.backward()
    gradients = {f"d{key}": p.grad for key, p in head.named_parameters()}
    found = {"loss": value.detach(), "dembeddings": embeddings.grad, **gradients}
    assert all(tensor is not None for tensor in found.values())
    return {**found, **state_of(head)}


@pytest.mark.parametrize(("name", "mode"), MODES)
@pytest.mark.parametrize("rows", [B, 2 * D])  # similarities kept, computed again
def test_equals_dense_in_float64(name: str, mode: str, rows: int) -> None:
    head = make_head(name, mode, options=SMALL)
    found = outcome(head, MarginHead.__call__, rows)
    expected = outcome(make_head(name, mode), MarginHead.dense_loss, rows)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        scale = float(value.abs().max()) + 1e-30
        assert float((found[key] - value).abs().max()) / scale < 1e-10, key


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_float32_equals_float64(name: str, mode: str) -> None:
    head, precise = make_head(name, mode, torch.float32), make_head(name, mode)
    if name.startswith("elasticface"):
        precise.load_state_dict(head.state_dict())
    precise.weight.data = head.weight.data.double()
    embeddings, labels = make_batch(dtype=torch.float32)
    values = []
    for h in (head, precise):
        e = embeddings.to(h.weight.dtype).detach().clone().requires_grad_()
        loss = h(e, labels)
        loss.backward()
        values.append([loss.detach().double(), e.grad.double(), h.weight.grad.double()])  # type: ignore[union-attr]
    for found, expected in zip(*values, strict=True):
        scale = float(expected.abs().max()) + 1e-30
        assert float((found - expected).abs().max()) / scale < 2e-5


@pytest.mark.parametrize("name", list_heads())
def test_a_second_backward_pass_gives_the_same(name: str) -> None:
    head = make_head(name, "exact")
    embeddings, labels = make_batch()
    embeddings.requires_grad_()
    loss = head(embeddings, labels)
    first = torch.autograd.grad(loss, [embeddings, head.weight], retain_graph=True)
    again = torch.autograd.grad(loss, [embeddings, head.weight])
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", ["curricularface", "mv_softmax", "adacos", "adaface"])
def test_the_state_of_a_later_batch_does_not_reach_an_earlier_gradient(name: str) -> None:
    head, plain = make_head(name, "exact"), make_head(name, "exact")
    embeddings, labels = make_batch()
    parts = (slice(0, 6), slice(6, 12))
    torch.stack([head(embeddings[part], labels[part]) for part in parts]).sum().backward()
    for part in parts:
        plain.dense_loss(embeddings[part], labels[part]).backward()
    torch.testing.assert_close(head.weight.grad, plain.weight.grad)


@pytest.mark.parametrize("name", list_heads())
def test_predictions_are_by_cosines(name: str) -> None:
    """Also of heads that compare with inner products: angles are logged from them."""
    head = make_head(name, "exact")
    with torch.no_grad():
        head.weight[3] *= 50  # long, so inner products would nearly always choose it
    embeddings, labels = make_batch()
    labels = labels.clamp(min=0)
    nearest, own = predictions(head.centers, embeddings, labels)
    cosine = cosines(head, embeddings)
    assert torch.equal(nearest, cosine.argmax(1))
    torch.testing.assert_close(own, cosine.gather(1, labels[:, None])[:, 0])


def test_filtering_needs_cosines() -> None:
    head = make_head("softmax", "exact", options={"interclass_filtering_threshold": 0.4})
    with pytest.raises(
        InputError, match="interclass_filtering_threshold is a cosine; head softmax compares"
    ):
        head(*make_batch())


@pytest.mark.parametrize("name", list_heads())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_centers_in_16_bits(name: str, dtype: torch.dtype) -> None:
    """As under trainer.precision=bf16-true: computed in float32, then rounded."""
    head, precise = make_head(name, "exact", torch.float32), make_head(name, "exact", torch.float32)
    head.weight.data = head.weight.data.to(dtype)
    precise.weight.data = head.weight.data.float()
    embeddings, labels = make_batch(dtype=torch.float32)
    for h in (head, precise):
        h(embeddings, labels).backward()
    assert head.weight.grad is not None
    assert head.weight.grad.dtype == dtype
    error = (head.weight.grad.float() - precise.weight.grad).abs().max()
    assert error <= 2 * torch.finfo(dtype).eps * precise.weight.grad.abs().max()


@pytest.mark.parametrize("name", list_heads())
def test_backward_inside_autocast(name: str) -> None:
    results = []
    for inside in (False, True):
        head = make_head(name, "exact", torch.float32)
        embeddings, labels = make_batch(dtype=torch.float32)
        embeddings.requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
            head(embeddings, labels).backward()
            nearest, own = predictions(head.centers, embeddings, labels)
        assert own.dtype == torch.float32
        results.append([embeddings.grad, head.weight.grad, nearest, own])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_without_gradients_no_memory_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_empty_gradient", None)  # not even called
    head, (embeddings, labels) = make_head("x2softmax", "exact"), make_batch()
    with torch.no_grad():
        loss = head(embeddings, labels)
    head.weight.requires_grad_(False)
    assert loss == head(embeddings, labels)


@pytest.mark.parametrize("name", list_heads())
def test_a_micro_batch_without_labels_keeps_the_state_of_the_step(name: str) -> None:
    head, other = make_head(name, "exact"), make_head(name, "exact")
    embeddings, labels = make_batch()
    nothing = torch.full_like(labels, -1)
    for h in (head, other):
        h.begin_step()
        h(embeddings, labels)
    head(embeddings, nothing)
    for a, b in zip(head.buffers(), other.buffers(), strict=True):
        if name.startswith("elasticface"):
            continue  # counts steps, which both have had one of
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("rows", [B, 2 * D])
@pytest.mark.parametrize("name", ["x2softmax", "circle", "uniface", "subcenter_arcface"])
def test_bfloat16_products_are_near(name: str, rows: int) -> None:
    """The error that docs/classifier.md states, for every kind of gradient."""
    values = []
    for matmul_precision in ("float32", "bfloat16"):
        options = {"matmul_precision": matmul_precision}
        head = make_head(name, "exact", torch.float32, options=options)
        values.append(outcome(head, MarginHead.__call__, rows))
    for key in ("loss", "dembeddings", "dcenters.weight"):
        a, b = values[0][key], values[1][key]
        assert 0 < float((a - b).norm() / a.norm()) < 0.1, key


@pytest.mark.parametrize("label", [C, -2])
def test_labels_that_are_no_classes(label: int) -> None:
    head, (embeddings, labels) = make_head("arcface", "exact"), make_batch()
    labels[3] = label
    with pytest.raises(InputError, match=f"labels from .* for {C} classes"):
        head(embeddings, labels)


def test_margins_that_the_loss_over_chunks_cannot_compute() -> None:
    with pytest.raises(TypeError, match="changes negatives and must not define scaled"):

        class Scaled(Margin):
            changes_negatives = True

            def scaled(self, values: Tensor, embeddings: Tensor) -> Tensor:
                return values
