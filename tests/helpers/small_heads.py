"""Heads of a few classes, a batch for them, and how a batch is divided among processes."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.classifier import ClassifierOptions, Shard
from marginface.heads import MarginHead, create_head, head_defaults, list_heads
from marginface.training.optimizers import SGD, AdamW

B, C, D = 12, 23, 16
MODES = [
    (name, mode)
    for name in list_heads()
    for mode in ("straight_through", "exact")
    if mode == "exact" or "margin_gradient" in head_defaults(name)
]
SMALL: dict[str, Any] = {"chunk_mib": 0.001}  # a class or two at a time
MAKE_OPTIMIZER: dict[str, Callable[[Iterable[Any]], torch.optim.Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "plain": lambda p: SGD(p, lr=0.1),
    "adamw": lambda p: AdamW(p, lr=0.1, weight_decay=0.1),
}


def make_head(
    name: str,
    mode: str | None = None,
    dtype: torch.dtype = torch.float64,
    *,
    classes: int = C,
    width: int = D,
    ranks: tuple[int, int] | None = None,
    length: float = 100.0,
    options: dict[str, Any] | None = None,
    **parameters: Any,
) -> MarginHead:
    """A head that is the same at every call.

    Args:
        mode: its margin_gradient, where it has one to choose.
        ranks: rank and number of the processes that the classes are divided among.
        length: factor on the class centers, which begin short.
        options: of the classifier.
    """
    torch.manual_seed(0)
    if mode is not None and "margin_gradient" in head_defaults(name):
        parameters["margin_gradient"] = mode
    head = create_head(
        name,
        embedding_size=width,
        num_classes=classes,
        classifier=ClassifierOptions(**(options or {})),
        shard=None if ranks is None else Shard(*ranks, classes),
        **parameters,
    ).to(dtype)
    with torch.no_grad():
        head.weight.mul_(length)
    return head


def make_batch(rows: int = B, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Embeddings and labels, with a class twice and a row without a label."""
    generator = torch.Generator().manual_seed(1)
    embeddings = 5 * torch.randn(rows, D, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, C, (rows,), generator=generator)
    labels[1], labels[2], labels[rows - 1] = 4, 4, -1
    return embeddings.to(dtype), labels


def cosines(head: MarginHead, embeddings: Tensor) -> Tensor:
    """(B, C) cosines to the nearest center of each class, by a plain product."""
    every = F.linear(F.normalize(embeddings), F.normalize(head.weight.to(embeddings.dtype)))
    return every.unflatten(1, (-1, head.centers.centers_per_class)).amax(2)


def plain_logits(head: MarginHead, embeddings: Tensor) -> Tensor:
    """(B, C) scaled logits without any margin."""
    if head.margin.normalizes:
        return head.margin.scaled(cosines(head, embeddings), embeddings)
    return head.margin.scaled(F.linear(embeddings, head.weight), embeddings)


def state_of(head: MarginHead) -> dict[str, Tensor]:
    """The buffers of a head."""
    return dict(head.named_buffers())


def parts_of(world: int, case: str = "") -> list[slice]:
    """The rows of each process, unequal ones unless that is the case to be tested."""
    cut = {1: [0, B], 2: [0, 5, B], 3: [0, 3, 8, B]}[world]
    if case == "equal parts":
        cut = list(range(0, B + 1, B // world))
    return [slice(a, b) for a, b in pairwise(cut)]
