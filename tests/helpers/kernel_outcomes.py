"""What a head gives through the kernels, in plain torch, and densely in float64."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from helpers.small_heads import make_head
from marginface.classifier import fused
from marginface.heads import MarginHead

WITHOUT_KERNELS = {"subcenter_arcface", "q_margin"}


@dataclass(frozen=True)
class Case:
    """Sizes and options of a comparison."""

    rows: int = 21
    classes: int = 101
    width: int = 24
    device: str = "cpu"
    options: tuple[tuple[str, Any], ...] = ()
    parameters: tuple[tuple[str, Any], ...] = ()

    def batch(self) -> tuple[Tensor, Tensor]:
        """Embeddings and labels, with a class twice and a row without a label."""
        generator = torch.Generator().manual_seed(1)
        embeddings = 5 * torch.randn(self.rows, self.width, generator=generator).double()
        labels = torch.randint(0, self.classes, (self.rows,), generator=generator)
        if self.rows > 2:
            labels[0] = labels[1]
            labels[-1] = -1
        return embeddings.to(self.device), labels.to(self.device)

    def head(self, name: str, mode: str, dtype: torch.dtype, **options: Any) -> MarginHead:
        head = make_head(
            name, mode, dtype, classes=self.classes, width=self.width,
            options={**dict(self.options), **options}, **dict(self.parameters),
        )  # fmt: skip
        return head.to(self.device)


def outcome(head: MarginHead, dense: bool, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Loss and all gradients, in float64."""
    embeddings = batch[0].to(head.weight.dtype).requires_grad_()
    loss = (MarginHead.dense_loss if dense else MarginHead.__call__)(head, embeddings, batch[1])
    loss.backward()
    gradients = {key: p.grad for key, p in head.named_parameters()}
    found = {"loss": loss.detach(), "embeddings": embeddings.grad, **gradients}
    assert all(tensor is not None for tensor in found.values())
    return {
        key: (t.to_dense() if t.is_sparse else t).double()  # type: ignore[union-attr]
        for key, t in found.items()
    }


def exact_outcome(case: Case, name: str, mode: str) -> dict[str, Tensor]:
    """Densely, in float64, from the same numbers."""
    head, single = case.head(name, mode, torch.float64), case.head(name, mode, torch.float32)
    head.load_state_dict(single.state_dict())
    return outcome(head, True, case.batch())


def errors(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Length of each difference over the length of what is exact."""
    assert found.keys() == exact.keys()
    return {
        key: float((found[key] - value).norm() / value.norm().clamp_min(1e-30))
        for key, value in exact.items()
    }


def count_passes(monkeypatch: Any) -> list[str]:
    """Filled with the name of what went over the classes in each forward pass."""
    seen: list[str] = []
    keep = fused._keep

    def counted(*arguments: Any) -> None:
        seen.append(type(arguments[4]).__name__)  # ctx, queries, weight, inputs, the pass, buffer
        keep(*arguments)

    monkeypatch.setattr(fused, "_keep", counted)
    return seen
