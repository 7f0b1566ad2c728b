"""Seconds and memory of a head's loss, forward and backward: ours against the plain ways.

Ways that end in SGD also take the optimizer step of the centers, with momentum and weight decay.

    python benchmarks/head.py                          everything, about an hour on 2 cores
    python benchmarks/head.py --batches 128 --classes 93431 --rounds 1
    python benchmarks/head.py --device cuda --classes 93431 2000000 10000000 --batches 1024

The peers are written here from the description of what their code does. plain: normalize, product,
margin on the target, cross-entropy, all by autograd. official: the margin layer of X2-Softmax's and
insightface's code, which takes arccos and cos of all logits in place and without autograd, then
CrossEntropyLoss. PartialFC: insightface's PartialFC_V2 on one process (arccos in place, clamped
softmax cross-entropy with its hand-written backward, collectives of one). Those of one curve must
agree on the loss and on the length of both gradients.

Every measurement is a process of its own: one warm-up, then the median of the rounds; the memory is
the highest resident size (Linux; on a GPU the allocator's peak) less what the process had with
weights and batch in place. Writes <out>/head_<device>.json (every run, hardware, date).
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from hardware import hardware
from torch import Tensor, nn

from marginface.classifier import ClassifierOptions
from marginface.heads import create_head
from marginface.training.optimizers import SGD, step_in_backward

WIDTH, SCALE = 512, 64.0
Loss = Callable[[Tensor, Tensor, nn.Parameter, int], Tensor]


def x2_curve(angle: Tensor) -> Tensor:
    return -0.9 * angle**2 + 0.65


def plain(e: Tensor, y: Tensor, weight: nn.Parameter, step: int) -> Tensor:
    cosine = F.linear(F.normalize(e), F.normalize(weight)).clamp(-1, 1)
    own = cosine.gather(1, y[:, None])
    target = own + (x2_curve(own.detach().arccos()) - own.detach())
    return F.cross_entropy(SCALE * cosine.scatter(1, y[:, None], target), y)


def official(e: Tensor, y: Tensor, weight: nn.Parameter, step: int) -> Tensor:
    logits = F.linear(F.normalize(e), F.normalize(weight)).clamp(-1, 1)
    rows = torch.arange(len(y), device=y.device)
    with torch.no_grad():
        logits.arccos_()
        target = x2_curve(logits[rows, y])
        logits.cos_()
        logits[rows, y] = target
    return F.cross_entropy(logits * SCALE, y)


class DistributedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, y: Tensor) -> Tensor:
        highest = logits.max(1, keepdim=True).values
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        logits.sub_(highest).exp_()
        total = logits.sum(1, keepdim=True)
        dist.all_reduce(total)
        logits.div_(total)
        own = logits.gather(1, y[:, None])
        dist.all_reduce(own)
        ctx.save_for_backward(logits, y)
        return -own.clamp_min(1e-30).log().mean()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        logits, y = ctx.saved_tensors
        one_hot = torch.zeros_like(logits).scatter_(1, y[:, None], 1)
        return logits.sub_(one_hot).div_(len(y)).mul_(upstream[0].item()), None


def sampled(weight: Tensor, y: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """PartialFC's way to a sample: random numbers, 2 for the classes of the batch, the largest."""
    order = torch.rand(len(weight), device=weight.device)
    order[y.unique()] = 2.0
    index = order.topk(int(rate * len(weight))).indices.sort().values
    return weight[index], torch.searchsorted(index, y)


def partial_fc(rate: float) -> Loss:
    def loss(e: Tensor, y: Tensor, weight: nn.Parameter, step: int) -> Tensor:
        rows: Tensor = weight
        if rate < 1:
            rows, y = sampled(weight, y, rate)
        logits = F.linear(F.normalize(e), F.normalize(rows)).clamp(-1, 1)
        batch = torch.arange(len(y), device=y.device)
        with torch.no_grad():
            logits.arccos_()
            logits[batch, y] += 0.5
            logits.cos_()
        return DistributedCrossEntropy.apply(logits * SCALE, y)

    return loss


class Ours:
    def __init__(self, name: str, **options: Any) -> None:
        classifier = ClassifierOptions(**options)
        self.head = create_head(name, embedding_size=WIDTH, num_classes=2, classifier=classifier)

    def __call__(self, e: Tensor, y: Tensor, weight: nn.Parameter, step: int) -> Tensor:
        centers = self.head.centers
        centers.num_classes, centers.weight = len(weight), weight
        return self.head(e, y)


WAYS: dict[str, tuple[str, Callable[[], Loss]]] = {  # curve, or "" where losses need not agree
    "plain": ("x2softmax", lambda: plain),
    "official": ("x2softmax", lambda: official),
    "fused": ("x2softmax", lambda: Ours("x2softmax")),
    "PartialFC": ("arcface", lambda: partial_fc(1.0)),
    "fused arcface": ("arcface", lambda: Ours("arcface")),
    "fused bfloat16": ("", lambda: Ours("x2softmax", matmul_precision="bfloat16")),
    "PartialFC 0.1": ("", lambda: partial_fc(0.1)),
    "fused 0.1 sparse": ("", lambda: Ours("x2softmax", sample_rate=0.1)),
    "fused 0.1 dense": ("", lambda: Ours("x2softmax", sample_rate=0.1, sampling="dense")),
    "official, SGD": ("x2softmax, SGD", lambda: official),
    "fused, SGD": ("x2softmax, SGD", lambda: Ours("x2softmax")),
    "fused, SGD inside": (
        "x2softmax, SGD",
        lambda: Ours("x2softmax", optimizer_in_backward=True),
    ),
}


def measure(way: str, batch: int, classes: int, rounds: int, device: str, out: Any) -> None:
    torch.set_num_threads(2)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    generator = torch.Generator(device).manual_seed(0)
    weight = nn.Parameter(torch.empty(classes, WIDTH, device=device))
    with torch.no_grad():
        weight.normal_(0, 0.01, generator=generator)
    e = torch.randn(batch, WIDTH, device=device, generator=generator, requires_grad=True)
    y = torch.randint(0, classes, (batch,), device=device, generator=generator)
    loss_of = WAYS[way][1]()
    optimizer = optimizer_of(way, loss_of, weight)
    before = _memory(device, reset=True)
    seconds, value = [], torch.zeros(())
    for step in range(rounds + 1):
        weight.grad = e.grad = None
        _wait(device)
        start = time.perf_counter()
        value = loss_of(e, y, weight, step)
        value.backward()
        if optimizer is not None:
            optimizer.step()
        _wait(device)
        seconds.append(time.perf_counter() - start)
    assert e.grad is not None
    # What SGD moved where it moved, else the gradient that it would be given.
    centers = weight.detach() if optimizer is not None else weight.grad
    assert centers is not None
    lengths = [
        float(g.coalesce().values().norm() if g.is_sparse else g.norm()) for g in (e.grad, centers)
    ]
    out.put(
        {
            "seconds": statistics.median(seconds[1:]),
            "all_seconds": seconds[1:],
            "mib": (_memory(device) - before) / 2**20,
            "loss": value.item(),
            "gradients": lengths,
        }
    )
    dist.destroy_process_group()


def optimizer_of(way: str, loss_of: Loss, weight: nn.Parameter) -> torch.optim.Optimizer | None:
    """SGD whose momentum is in memory already; torch's own for the plain ways."""
    if "SGD" not in way:
        return None
    make = SGD if isinstance(loss_of, Ours) else torch.optim.SGD
    optimizer = make([weight], lr=0.1, momentum=0.9, weight_decay=5e-4)
    optimizer.state[weight]["momentum_buffer"] = torch.full_like(weight, 0.0)
    if isinstance(loss_of, Ours) and loss_of.head.options.optimizer_in_backward:
        loss_of.head.centers.step_centers_in_backward = step_in_backward(optimizer, weight)
    return optimizer


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _memory(device: str, reset: bool = False) -> int:
    """Peak bytes since the last reset."""
    if device == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def in_a_process(*arguments: Any) -> dict[str, Any] | None:
    """What `measure` found; None when the process did not survive."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=measure, args=(*arguments, queue))
    process.start()
    process.join()
    return queue.get() if process.exitcode == 0 else None


def check_agreement(found: dict[str, dict[str, Any]]) -> None:
    for curve in {curve for curve, _ in WAYS.values() if curve}:
        same = [r for way, r in found.items() if WAYS[way][0] == curve]
        for result in same[1:]:
            for key in ("loss", "gradients"):
                a, b = torch.tensor(result[key]), torch.tensor(same[0][key])
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--classes", type=int, nargs="+", default=[10_000, 93_431, 360_232])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    results = []
    for classes in arguments.classes:
        for batch in arguments.batches:
            found = {}
            for way in arguments.ways:
                result = in_a_process(way, batch, classes, arguments.rounds, arguments.device)
                if result is None:
                    print(f"B {batch} C {classes} {way}: did not survive (memory?)", flush=True)
                    continue
                found[way] = result
                print(
                    f"B {batch} C {classes} {way}: {result['seconds']:.3f} s, "
                    f"{result['mib']:.0f} MiB, loss {result['loss']:.4f}",
                    flush=True,
                )
            check_agreement(found)
            results.append({"batch": batch, "classes": classes, "ways": found})
    arguments.out.mkdir(parents=True, exist_ok=True)
    content = {"hardware": hardware(), "threads": 2, "width": WIDTH, "results": results}
    path = arguments.out / f"head_{arguments.device}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
