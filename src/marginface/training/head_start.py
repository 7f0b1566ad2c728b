"""Where a head begins other than at random: centers of a file, or the means of its classes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from marginface.data.datamodule import FaceDataModule
from marginface.data.loader import batch_loader
from marginface.data.sampling import EvaluationSampler
from marginface.heads import MarginHead
from marginface.training.center_files import read_center_file
from marginface.utils.console import rank_zero_print, tracked
from marginface.utils.distributed import add_over_ranks, rank
from marginface.utils.errors import InputError
from marginface.utils.text_table import read_table

CLASS_MEANS = "class_means"
HEAD_START = ("weights", "classes")  # keys of the `head` group that are not the head's own


def start_head(
    head: MarginHead, weights: str | None, classes: str | None
) -> Callable[[Callable[[Tensor], Tensor], FaceDataModule], None] | None:
    """Begin where `head.weights` says.

    Args:
        head: with random centers.
        weights: null for those, "class_means", or a file.
        classes: see `start_from_file`.

    Returns:
        What is still to be done when the network is on its device, if anything.
    """
    if weights == CLASS_MEANS:
        return partial(start_from_means, head)
    if weights is not None:
        start_from_file(head, weights, classes)
    return None


def start_from_file(head: MarginHead, weights: str, classes: str | None) -> None:
    """Give a head the centers of a file; classes that it does not know keep their random ones.

    Args:
        head: K centers of a class become K times the same.
        weights: see `center_files.read_center_file`.
        classes: .csv with the columns old,new: which class of the file is which one here. Without
            it the file has the classes of this run, in their order. Old classes that are not named
            are dropped.

    Raises:
        InputError: a file that does not fit.
    """
    old = read_center_file(weights, head.embedding_size)
    per_class = head.centers.centers_per_class
    if old.shape[1] not in (1, per_class):
        raise InputError(
            f"head.weights={weights} has {old.shape[1]} centers a class and this head {per_class}"
        )
    if classes is not None:
        pairs = _class_pairs(Path(classes), len(old), head.num_classes)
    elif len(old) == head.num_classes:
        pairs = np.stack([np.arange(len(old))] * 2, 1)
    else:
        raise InputError(
            f"head.weights={weights} has centers of {len(old)} classes and the data "
            f"{head.num_classes}; head.classes=<csv> with the columns old,new says which is which"
        )
    table = torch.full((head.num_classes, per_class, head.embedding_size), torch.nan)
    table[torch.from_numpy(pairs[:, 1])] = old[torch.from_numpy(pairs[:, 0])].expand(
        -1, per_class, -1
    )
    known = assign_centers(head, table.flatten(0, 1))
    rank_zero_print(
        f"head: {known // per_class} of {head.num_classes} classes begin at centers of {weights}, "
        f"the others at random; {len(old) - len(np.unique(pairs[:, 0]))} old classes are not used"
    )


def start_from_means(
    head: MarginHead, embed: Callable[[Tensor], Tensor], datamodule: FaceDataModule
) -> None:
    """Give a head the mean directions of its classes, of the length that random centers have.

    Args:
        head: K centers of a class become K times the same.
        embed: uint8 (B, 3, S, S) to (B, D).
        datamodule: of the run.
    """
    means = class_means(embed, datamodule, head.num_classes, head.weight.device)
    seen = means.norm(dim=1, keepdim=True) > 0
    lengths = head.weight.detach().float().norm(dim=1)
    sums = add_over_ranks(torch.stack([lengths.sum(), lengths.new_tensor(len(lengths))]))
    table = torch.where(seen, sums[0] / sums[1] * means, torch.nan)
    known = assign_centers(head, table.repeat_interleave(head.centers.centers_per_class, 0))
    rank_zero_print(f"head: {known} centers begin at the means of their classes")


def class_means(
    embed: Callable[[Tensor], Tensor],
    datamodule: FaceDataModule,
    num_classes: int,
    device: torch.device,
) -> Tensor:
    """(C, D) mean directions of the classes, of unit length; 0 for a class without an image.

    One pass over the training images, shared by all processes.

    Args:
        embed: uint8 (B, 3, S, S) to (B, D).
        datamodule: of the run.
        num_classes: C.
        device: where they are computed.
    """
    trainer = datamodule.trainer
    assert trainer is not None
    faces = datamodule.train_set
    sampler = EvaluationSampler(
        len(faces), datamodule.eval_batch_size, rank=rank(), world_size=trainer.world_size
    )
    loader = batch_loader(
        faces, sampler, datamodule.eval_batch_size, num_workers=datamodule.num_workers
    )
    total: Tensor | None = None
    with torch.no_grad():
        for images, labels, _ in tracked(loader, len(loader), "class means, batches"):
            is_there = labels >= 0  # processes that have fewer images get empty ones
            directions = F.normalize(embed(images.to(device)).float(), dim=1).to(device)
            if total is None:
                total = torch.zeros(num_classes, directions.shape[1], device=device)
            total.index_add_(0, labels[is_there].to(device), directions[is_there])
    assert total is not None, "every process has a batch"
    return F.normalize(add_over_ranks(total), dim=1)


def assign_centers(head: MarginHead, table: Tensor) -> int:
    """Put known rows of all classes where this process has them; returns how many are known.

    Args:
        table: (C K, D), with NaN in the rows that are to stay as they are.
    """
    shard, per_class = head.shard, head.centers.centers_per_class
    own = table if shard is None else table[shard.start * per_class : shard.stop * per_class]
    known = torch.isfinite(own).all(1)
    with torch.no_grad():
        weight = head.weight
        weight[known.to(weight.device)] = own[known].to(weight.device, weight.dtype)
    return int(torch.isfinite(table).all(1).sum())


def _class_pairs(path: Path, old: int, new: int) -> np.ndarray:
    """(N, 2) class of the file and class here."""
    table = read_table(path, lambda fields, others: {"old", "new"} <= set(fields))
    if table.headings is None:
        raise InputError(f"head.classes={path}: its first line must name the columns old,new")
    found = []
    for line, cells in zip(table.lines, table.by_heading({"old": (), "new": ()}), strict=True):
        for cell, count, what in zip(cells, (old, new), ("old", "new"), strict=True):
            if not cell.isdigit() or int(cell) >= count:
                raise InputError(
                    f"head.classes={path}, line {line.number}: {what} must be a class from 0 to "
                    f"{count - 1}, got {cell!r}"
                )
        found.append([int(cell) for cell in cells])
    pairs = np.array(found, np.int64).reshape(-1, 2)
    if len(np.unique(pairs[:, 1])) < len(pairs):
        numbers, counts = np.unique(pairs[:, 1], return_counts=True)
        raise InputError(
            f"head.classes={path}: class {numbers[counts > 1][0]} of this run is named twice"
        )
    return pairs
