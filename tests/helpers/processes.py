"""Work in several gloo processes that start as copies of this one."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_processes(world: int, folder: Path, work: Any, *more: Any) -> list[Any]:
    """What `work(rank, world, *more)` returned in each process of one group.

    Args:
        folder: an empty one, for what the processes exchange.
    """
    context = mp.get_context("fork")
    arguments = (world, str(folder / "store"), str(folder), work, *more)
    processes = [context.Process(target=_process, args=(r, *arguments)) for r in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0] * world
    return [torch.load(folder / f"{r}.pt", weights_only=False) for r in range(world)]


def _process(rank: int, world: int, store: str, folder: str, work: Any, *more: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    dist.barrier()  # one that is done at once must not leave while another still connects
    try:
        torch.save(work(rank, world, *more), f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()
