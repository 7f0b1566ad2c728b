"""An estimate of the classifier's memory, and whether sampling would pay, before a run."""

from dataclasses import dataclass

import torch

from marginface.classifier.options import MIB, ClassifierOptions
from marginface.utils.hardware import has_bfloat16

# Classes from which insightface's maintainers saw sampling pay (its issue 1622).
SAMPLING_PAYS_FROM = 2_000_000
_STATE_COPIES = {"SGD": 1, "AdamW": 2}  # of the centers, that the optimizer keeps


@dataclass(frozen=True)
class ClassifierMemory:
    """Bytes of one process."""

    centers: int
    optimizer: int
    gradient: int
    chunks: int
    logits: int  # what all (B, C) logits would take once, which is never built

    @property
    def total(self) -> int:
        return self.centers + self.optimizer + self.gradient + self.chunks


def classifier_memory(
    rows: int,
    width: int,
    batch_size: int,
    options: ClassifierOptions,
    *,
    optimizer: str = "SGD",
    world: int = 1,
    accumulates: bool = False,
    in_kernels: bool = False,
    device: torch.device,
) -> ClassifierMemory:
    """The memory of `rows` class centers in float32 on each of `world` processes.

    Args:
        rows: C K, all centers; `world` is the number of parts they are in.
        batch_size: global batch, all of which meets every part.
        accumulates: whether gradients of several micro-batches are added up.
        optimizer: class name; others than SGD and AdamW count like AdamW.
    """
    here = -(-rows // world)
    centers = 4 * here * width
    touched = here if not options.samples else min(here, round(rows * options.sample_rate / world))
    kept = here if options.samples and options.sampling == "dense" else 0
    return ClassifierMemory(
        centers=centers,
        optimizer=_STATE_COPIES.get(optimizer, 2) * centers,
        gradient=0
        if options.optimizer_in_backward
        else (2 if accumulates else 1) * 4 * (touched + kept) * width,
        chunks=options.kernel_chunk_bytes(centers, options.splits_operands)
        if in_kernels
        else options.chunk_bytes(device),
        logits=4 * batch_size * here,
    )


def classifier_lines(
    memory: ClassifierMemory,
    classes: int,
    options: ClassifierOptions,
    world: int,
    device: torch.device,
) -> list[str]:
    """The estimate and the advice in words, for a terminal."""
    each = "" if world == 1 else f" on each of {world} processes"
    lines = [
        f"about {_size(memory.total)}{each}: centers {_size(memory.centers)}, optimizer "
        f"{_size(memory.optimizer)}, gradient {_size(memory.gradient)}, chunks "
        f"{_size(memory.chunks)} (all logits would be {_size(memory.logits)} a copy; never built)"
    ]
    if options.matmul_precision == "bfloat16" and not has_bfloat16(device):
        lines.append(
            "matmul_precision=bfloat16 is many times slower here: this CPU has no such instructions"
        )
    if options.samples:
        lines.append(
            f"sample_rate {options.sample_rate:g}: {round(options.sample_rate * classes)} of "
            f"{classes} classes a step"
        )
        if classes < SAMPLING_PAYS_FROM:
            lines.append(
                f"sampling saves little below about {SAMPLING_PAYS_FROM:,} classes, where "
                "insightface's users saw it pay, and may cost accuracy: compare with "
                "classifier.sample_rate=1"
            )
    elif classes >= SAMPLING_PAYS_FROM:
        lines.append(
            f"{classes} classes: classifier=partial_fc compares with a tenth of them in each step, "
            "trainer=class_parallel shards them over processes"
        )
    return lines


def _size(number: float) -> str:
    mib = number / MIB
    return f"{mib:,.0f} MiB" if mib < 10_240 else f"{mib / 1024:,.1f} GiB"
