"""How many operations a step of a head queues: on a GPU each costs the host some microseconds."""

from typing import Any

import pytest
import torch

from helpers.operations import Operations
from marginface.heads import create_head, list_heads

_WAITS = {"_local_scalar_dense", "nonzero"}


def operations(name: str, **parameters: Any) -> Operations:
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
    return operations


@pytest.mark.parametrize("name", ["x2softmax", "arcface", "cosface", "normface", "expface"])
def test_at_most_70_operations_and_one_wait(name: str) -> None:
    found = operations(name)
    assert found.launched().total() <= 70, found.launched()
    assert sum(found.count[wait] for wait in _WAITS) <= 1


@pytest.mark.parametrize("name", list_heads())
def test_no_head_reads_a_number_or_looks_for_its_rows(name: str) -> None:
    """Without a shard every row has its class here, and what a margin draws is drawn there."""
    count = operations(name).count
    assert count["nonzero"] == 0
    # The threshold of an alpha-divergence is searched for until it is found.
    assert (count["_local_scalar_dense"] > 0) == (name == "q_margin")
