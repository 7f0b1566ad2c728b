"""The torchmetrics wrapper gives what the function gives, on any number of processes."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from marginface.metrics.pair_verification import PairVerification, table_of
from marginface.metrics.verification import evaluate_pairs
from marginface.utils.errors import NotFiniteError

PAIRS = 37  # nothing divides it
IMAGES = 53  # some images are in several pairs


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(IMAGES, 8, generator=generator)
    pairs = torch.randint(0, IMAGES, (PAIRS, 2), generator=generator)
    return embeddings, pairs, torch.rand(PAIRS, generator=generator) < 0.5


def update(metric: PairVerification, embeddings: torch.Tensor, rank: int, world: int) -> None:
    """In batches of 4, every world-th image, filled up with -1 so that all have as many."""
    mine = list(range(rank, IMAGES, world))
    mine += [-1] * (-(-IMAGES // world) - len(mine))
    for start in range(0, len(mine), 4):
        indices = torch.tensor(mine[start : start + 4])
        metric.update(embeddings[indices], indices)


def compute(rank: int, world: int) -> dict[str, float]:
    embeddings, pairs, same = data()
    metric = PairVerification(pairs, same, IMAGES)
    update(metric, embeddings, rank, world)
    return {name: float(value) for name, value in metric.compute().items()}


def _in_process(rank: int, world: int, store: str, queue: "mp.SimpleQueue[object]") -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        queue.put(compute(rank, world))
    finally:
        dist.destroy_process_group()


def test_one_process_is_the_function() -> None:
    embeddings, pairs, same = data()
    expected = evaluate_pairs(embeddings[pairs.flatten()], same)
    assert compute(0, 1) == expected.metrics()


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_are_one_to_the_last_digit(tmp_path: Path, world: int) -> None:
    context = mp.get_context("fork")
    queue = context.SimpleQueue()
    processes = [
        context.Process(target=_in_process, args=(rank, world, str(tmp_path / "store"), queue))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    results = [queue.get() for _ in processes]
    for process in processes:
        process.join(60)
    assert results == [compute(0, 1)] * world


def test_faults() -> None:
    embeddings, pairs, same = data()
    metric = PairVerification(pairs, same, IMAGES)
    update(metric, embeddings * float("nan"), 0, 1)
    with pytest.raises(NotFiniteError, match="of 74 embeddings are NaN"):
        metric.compute()
    rows = torch.arange(6.0).view(3, 2)
    table = table_of(torch.tensor([2, 0, 1]), rows, 3)
    assert table.tolist() == [[2.0, 3.0], [4.0, 5.0], [0.0, 1.0]]
    with pytest.raises(AssertionError, match="exactly one"):
        table_of(torch.tensor([2, 0, 0]), rows, 3)
