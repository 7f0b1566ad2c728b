"""How many operations a step of a head queues: on a GPU each costs the host some microseconds."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from marginface.heads import create_head, list_heads

# Those that only look at a tensor in another way, and launch nothing.
_VIEWS = {
    "view", "unsqueeze", "permute", "detach", "slice", "select", "squeeze", "expand", "alias", "t",
    "transpose", "as_strided", "unbind", "lift_fresh", "_unsafe_view",
}  # fmt: skip
_WAITS = {"_local_scalar_dense", "nonzero"}


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        self.count[function.name().split("::")[1].split(".")[0]] += 1
        return function(*arguments, **(named or {}))


def operations(name: str, **parameters: Any) -> Counter[str]:
    """Of a step of a head whose classes are one chunk, forward and backward."""
    torch.manual_seed(0)
    head = create_head(name, embedding_size=64, num_classes=500, **parameters)
    embeddings = torch.randn(32, 64, requires_grad=True)
    labels = torch.randint(0, 500, (32,))
    head(embeddings, labels).backward()
    embeddings.grad = None
    head.zero_grad()
    with Operations() as operations:
        head(embeddings, labels).backward()
    return operations.count


@pytest.mark.parametrize("name", ["x2softmax", "arcface", "cosface", "normface", "expface"])
def test_at_most_70_operations_and_one_wait(name: str) -> None:
    count = operations(name)
    launched = {key: number for key, number in count.items() if key not in _VIEWS}
    assert sum(launched.values()) <= 70, launched
    assert sum(count[wait] for wait in _WAITS) <= 1


@pytest.mark.parametrize("name", list_heads())
def test_no_head_reads_a_number_or_looks_for_its_rows(name: str) -> None:
    """Without a shard every row has its class here, and what a margin draws is drawn there."""
    count = operations(name)
    assert count["nonzero"] == 0
    # The threshold of an alpha-divergence is searched for until it is found.
    assert (count["_local_scalar_dense"] > 0) == (name == "q_margin")
