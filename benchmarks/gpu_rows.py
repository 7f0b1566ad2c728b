"""The rows of benchmarks/gpu.py: heads at many sizes, whole steps, a run from RecordIO."""

import contextlib
import csv
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import head as peers
import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.utils.flop_counter import FlopCounterMode

from marginface.backbones import create_backbone
from marginface.classifier import ClassifierOptions
from marginface.data.formats.recordio import write_recordio
from marginface.data.preprocessing import normalize_images
from marginface.heads import MarginHead, create_head
from marginface.training.optimizers import SGD, step_in_backward

Step = Callable[[], object]
ROOT = Path(__file__).parents[1]
SIZES = [(b, c) for c in (93_431, 360_232, 2_000_000, 10_000_000) for b in (1024, 512, 4096)]
RATE, SAMPLED = 0.1, "a tenth of the classes"
NETWORKS = {
    "iresnet50": {},
    "mobilefacenet": {},
    "iresnet100": {},
    "vit_small_patch8_224": {"pool": "model", "norm": "ln"},
}


# Of the backbone, by torch.compile's modes.
COMPILED = {
    "ours, bf16, compiled": "default",
    "ours, bf16, compiled with CUDA graphs": "reduce-overhead",
}


@dataclass
class Row:
    """What is measured.

    Attributes:
        prepare: gives the step to time, or what was measured.
        seconds: without which it is not begun.
        forget: drops gradients before a step.
        flop: of a whole step, where its share of the peak is to be known.
    """

    what: str
    mode: str
    batch: int
    classes: int
    prepare: Callable[[], Any]
    seconds: float = 4
    parameters: list[Tensor] = field(default_factory=list)
    flop: float = 0

    def forget(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def rows_of(parts: list[str], device: str) -> Iterator[Row]:
    """All rows of the parts, the cheapest first."""
    dry = device == "cpu"
    sizes = [(16, 200)] if dry else SIZES
    if "head" in parts:
        yield from head_rows(sizes[:1], device)
    if "step" in parts:
        batches = (4,) if dry else (128, 1024)
        networks = ["mobilefacenet"] if dry else list(NETWORKS)
        for name in networks:
            for batch in batches:
                yield from step_rows(name, batch, 100 if dry else 93_431, device)
    if "run" in parts and not dry:
        yield run_row()
    if "head" in parts:
        yield from head_rows(sizes[1:], device)


# -- heads ---------------------------------------------------------------------------------------


def head_rows(sizes: list[tuple[int, int]], device: str) -> Iterator[Row]:
    for batch, classes in sizes:
        for mode, options in OURS.items():
            if SAMPLED in mode and not samples(classes, device):
                continue
            yield head_row(mode, batch, classes, device, ours(options))
        if device != "cpu":
            yield head_row("float16, CUDA graph", batch, classes, device, graphed, 8)
        for mode, loss in PEERS.items():
            if "compiled" in mode and device == "cpu":
                continue
            if classes > 2_000_000:
                continue  # logits of 40 GB a copy
            if SAMPLED in mode and not samples(classes, device):
                continue
            seconds = 15 if "compiled" in mode else 4
            yield head_row(mode, batch, classes, device, loss, seconds)


def samples(classes: int, device: str) -> bool:
    """Whether a sample of so many classes is measured: where somebody would take one."""
    return classes > 100_000 or device == "cpu"


def head_row(
    mode: str, batch: int, classes: int, device: str, make: Callable[..., Any], seconds: float = 4
) -> Row:
    row = Row("head", mode, batch, classes, lambda: prepared(), seconds)

    @contextlib.contextmanager
    def prepared() -> Iterator[Step]:
        generator = torch.Generator(device).manual_seed(0)
        weight = nn.Parameter(torch.empty(classes, peers.WIDTH, device=device))
        weight.data.normal_(0, 0.01, generator=generator)
        e = torch.randn(batch, peers.WIDTH, device=device, generator=generator, requires_grad=True)
        y = torch.randint(0, classes, (batch,), device=device, generator=generator)
        row.parameters = [e, weight]
        with precision("high" if "TF32" in mode else "highest"):
            loss = make(weight)

            def step() -> None:
                row.forget()
                loss(e, y, weight, 0).backward()

            yield step
        row.parameters = []

    return row


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Of float32 products; "highest" is IEEE."""
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def ours(options: dict[str, Any]) -> Callable[[nn.Parameter], Any]:
    def make(weight: nn.Parameter) -> Any:
        loss = peers.Ours("x2softmax", **options)
        if options.get("optimizer_in_backward"):
            optimizer = SGD([weight], lr=0.1, momentum=0.9, weight_decay=5e-4)
            optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
            centers = loss.head.centers
            begin = step_in_backward(optimizer, weight)

            def each_time() -> Any:
                optimizer._has_stepped = False  # `step` would say so; here is nothing else to step
                return begin()

            centers.step_centers_in_backward = each_time
        return loss

    return make


def graphed(weight: nn.Parameter) -> Any:
    """The step of float16 as one CUDA graph: what the host's part of it costs."""
    loss = ours(OURS["float16"])(weight)
    replay: Any = None

    def step(e: Tensor, y: Tensor, weight: nn.Parameter, number: int) -> Any:
        nonlocal replay
        if replay is None:
            on_host = y.cpu()

            def captured(e: Tensor, y: Tensor, weight: nn.Parameter) -> Tensor:
                loss.head.centers.know_labels(y, on_host)  # a graph cannot ask a device
                return loss(e, y, weight, 0)

            replay = torch.cuda.make_graphed_callables(captured, (e, y, weight))
        return replay(e, y, weight)

    return step


def under_autocast(tail: Callable[[Tensor, Tensor], Tensor], compiled: bool = False) -> Any:
    """A formulation with its product in float16 and everything else in float32."""

    def loss(e: Tensor, y: Tensor, weight: nn.Parameter, step: int) -> Tensor:
        with torch.autocast(e.device.type, torch.float16):
            logits = F.linear(F.normalize(e), F.normalize(weight))
        return tail(logits.float().clamp(-1, 1), y)

    return lambda weight: torch.compile(loss, dynamic=False) if compiled else loss


def official_tail(logits: Tensor, y: Tensor) -> Tensor:
    rows = torch.arange(len(y), device=y.device)
    with torch.no_grad():
        logits.arccos_()
        target = peers.x2_curve(logits[rows, y])
        logits.cos_()
        logits[rows, y] = target
    return F.cross_entropy(logits * peers.SCALE, y)


def partial_fc_tail(logits: Tensor, y: Tensor) -> Tensor:
    rows = torch.arange(len(y), device=y.device)
    with torch.no_grad():
        logits.arccos_()
        logits[rows, y] += 0.5
        logits.cos_()
    return peers.DistributedCrossEntropy.apply(logits * peers.SCALE, y)


def sampled_partial_fc(weight: nn.Parameter) -> Any:
    whole = under_autocast(partial_fc_tail)(weight)

    def loss(e: Tensor, y: Tensor, weight: nn.Parameter, step: int) -> Tensor:
        rows, y = peers.sampled(weight, y, RATE)
        return whole(e, y, rows, step)

    return loss


OURS: dict[str, dict[str, Any]] = {
    "float16": {"matmul_precision": "float16"},
    "float32": {"matmul_precision": "float32"},
    "float16, SGD inside": {"matmul_precision": "float16", "optimizer_in_backward": True},
    "float16, plain torch": {"matmul_precision": "float16", "kernel": "torch"},
    f"float16, {SAMPLED}": {"matmul_precision": "float16", "sample_rate": RATE},
}
PEERS: dict[str, Callable[[nn.Parameter], Any]] = {
    "official, IEEE float32": lambda weight: peers.official,
    "official, TF32": lambda weight: peers.official,
    "PartialFC, fp16 autocast": under_autocast(partial_fc_tail),
    f"PartialFC, {SAMPLED}, fp16 autocast": sampled_partial_fc,
    "official compiled, fp16 autocast": under_autocast(official_tail, compiled=True),
}


# -- whole steps ---------------------------------------------------------------------------------


def step_rows(name: str, batch: int, classes: int, device: str) -> Iterator[Row]:
    """Backbone, head, clipping and SGD on a batch that is there: ours, and the plain loop."""
    modes = ["ours, bf16", "plain loop"]
    if name == "mobilefacenet" and batch == 128:  # where the host's part is the largest
        modes += COMPILED
    for mode in modes:
        seconds = 45 if mode in COMPILED else 12
        row = Row(f"step of {name}", mode, batch, classes, lambda: None, seconds=seconds)
        row.prepare = whole_step(row, name, batch, classes, device)
        yield row


def whole_step(row: Row, name: str, batch: int, classes: int, device: str) -> Callable[[], Any]:
    plain = row.mode == "plain loop"

    @contextlib.contextmanager
    def prepared() -> Iterator[Step]:
        torch.manual_seed(0)
        backbone = create_backbone(name, **NETWORKS[name]).to(device).train()
        images = torch.randint(0, 256, (batch, 3, 112, 112), dtype=torch.uint8, device=device)
        labels = torch.randint(0, classes, (batch,), device=device)
        with FlopCounterMode(display=False) as counter:
            backbone(normalize_images(images[:2], "rgb"))
        row.flop = 3 * batch * (counter.get_total_flops() / 2 + 2 * classes * peers.WIDTH)
        options = ClassifierOptions(matmul_precision="float16")
        head = create_head("x2softmax", embedding_size=512, num_classes=classes, classifier=options)
        head = head.to(device)
        if row.mode in COMPILED:
            backbone.compile(mode=COMPILED[row.mode], fullgraph=True)
        torch.backends.cudnn.benchmark = True
        row.parameters = [*backbone.parameters(), head.weight]
        make = plain_loop if plain else our_loop
        with precision("highest" if plain else "high"):
            yield make(backbone, head, images, labels)
        row.parameters = []
        skipped = counters["inductor"]["cudagraph_skips"]
        if "graph" in row.mode and skipped:
            raise RuntimeError(f"torch.compile left out {skipped} CUDA graphs")

    return prepared


def our_loop(backbone: nn.Module, head: MarginHead, images: Tensor, labels: Tensor) -> Step:
    backbone = backbone.to(memory_format=torch.channels_last)
    optimizer = SGD([*backbone.parameters(), head.weight], 0.1, momentum=0.9, weight_decay=5e-4)
    on_host = labels.cpu()

    def step() -> Tensor:
        x = normalize_images(images, "rgb").contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16):
            embeddings = backbone(x)
        head.centers.know_labels(labels, on_host)
        loss = head(embeddings, labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(backbone.parameters(), 5.0)
        optimizer.step()
        return loss

    return step


def plain_loop(backbone: nn.Module, head: MarginHead, images: Tensor, labels: Tensor) -> Step:
    weight = head.weight
    parameters = [*backbone.parameters(), weight]
    optimizer = torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=5e-4)
    partial_fc = under_autocast(partial_fc_tail)(weight)

    def step() -> float:
        with torch.autocast(images.device.type, torch.bfloat16):
            embeddings = backbone(normalize_images(images, "rgb"))
        loss = partial_fc(embeddings.float(), labels, weight, 0)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(backbone.parameters(), 5.0)
        optimizer.step()
        return loss.item()  # AverageMeter.update

    return step


# -- a run ---------------------------------------------------------------------------------------


def run_row(images: int = 30_000, identities: int = 3_000, workers: int = 14) -> Row:
    """`python train.py` from JPEGs in RecordIO on disk: images/s, share of waiting for data."""

    @contextlib.contextmanager
    def measured() -> Iterator[dict[str, float]]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_faces(root / "data", images, identities)
            command = [
                sys.executable, "train.py", "trainer=gpu", "experiment=x2softmax_ms1mv3_r50",
                f"data.root={root / 'data'}", "data.val_identities=0", "logger=csv",
                "trainer.precision=bf16-mixed", f"data.num_workers={workers}",
                "trainer.log_every_n_steps=50", "trainer.max_steps=251", "callbacks.progress=null",
                "validate_untrained=false", f"hydra.run.dir={root / 'run'}",
            ]  # fmt: skip
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
            with (root / "run/metrics.csv").open(newline="") as file:
                steady = list(csv.DictReader(file))[2:]  # the first steps try algorithms
        speed = [float(row["speed/images_per_second"]) for row in steady]
        wait = [float(row["speed/data_wait_share"]) for row in steady]
        yield {
            "images_per_second": float(np.median(speed)),
            "data_wait_share": float(np.median(wait)),
        }

    mode = f"iresnet50 bf16 from RecordIO, {workers} workers"
    return Row("run", mode, 128, identities, measured, seconds=50)


def write_faces(folder: Path, images: int, identities: int) -> None:
    """JPEGs of smooth noise, about as large as faces; eight different ones again and again."""
    generator = np.random.default_rng(0)
    coarse = torch.from_numpy(generator.uniform(0, 255, (8, 3, 20, 20)))
    smooth = F.interpolate(coarse, (112, 112), mode="bicubic").clamp(0, 255).byte()
    jpegs = [
        simplejpeg.encode_jpeg(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), 95)
        for image in smooth
    ]
    labels = [number * identities // images for number in range(images)]
    write_recordio(folder, [jpegs[n % len(jpegs)] for n in range(images)], labels)
