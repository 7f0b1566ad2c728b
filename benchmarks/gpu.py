"""Milliseconds and memory of the head, of whole training steps and of a run, on one NVIDIA GPU.

    python benchmarks/gpu.py                  8 minutes, results/gpu-<card>-<date>.json and .md
    python benchmarks/gpu.py --minutes 4 --parts head step
    python benchmarks/gpu.py --resume FILE    continues where a call ended
    python benchmarks/gpu.py --dry            small sizes on a CPU, to see that everything runs

Rows are written as they come, the cheapest first, so a call that is cut off loses nothing. Each
has a time limit; one that does not fit the memory says so, with the bytes that were asked for. A
time is the median of ten by CUDA events; memory is the allocator's peak beyond weights and batch,
so the gradient of the centers counts. The peers are written here from the description of what their
code does: see benchmarks/head.py for the heads. "fp16 autocast" computes the products in float16
and everything else in float32, as insightface's fp16=True does, with NCCL collectives of one
process. "compiled" is torch.compile of the official formulation. The plain loop has insightface's
train_v2.py in mind: 16-bit autocast of the backbone, its PartialFC, clipping, SGD, a loss that is
read in every step, channels first. In steps both sides have the same network, and batches that are
on the GPU already.
"""

import argparse
import contextlib
import gc
import json
import os
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from gpu_rows import Row, rows_of
from hardware import card_name, hardware

SECONDS_OF_A_ROW = 60


@dataclass
class Measured:
    """One row of the result file; `problem` in place of numbers where there are none."""

    what: str
    mode: str
    batch: int
    classes: int
    ms: float | None = None
    least_ms: float | None = None
    most_ms: float | None = None
    host_ms: float | None = None
    mib: float | None = None
    images_per_second: float | None = None
    share_of_peak: float | None = None
    data_wait_share: float | None = None
    ratio_to_official: float | None = None
    problem: str | None = None


class Bench:
    """Measures rows within a time, and writes the file after each."""

    def __init__(self, path: Path, seconds: float, device: str) -> None:
        self.path, self.device = path, device
        self.end = time.monotonic() + seconds
        self.rows: list[Measured] = []
        self.facts = facts(device)

    def read(self, file: Path) -> None:
        """Take over the rows of an earlier call on the same card."""
        content = json.loads(file.read_text())
        if content["card"] != self.facts["card"]:
            raise SystemExit(f"{file} is of {content['card']}, this is {self.facts['card']}")
        self.rows = [Measured(**row) for row in content["rows"]]

    def run(self, row: Row) -> None:
        if any(self._key(m) == self._key(row) and m.problem is None for m in self.rows):
            return
        left = self.end - time.monotonic()
        if left < row.seconds:
            print(f"no time: {row.what} {row.mode} B {row.batch} C {row.classes}", flush=True)
            return
        self.rows = [m for m in self.rows if self._key(m) != self._key(row)]
        measured = Measured(row.what, row.mode, row.batch, row.classes)
        try:
            with limited(min(left, SECONDS_OF_A_ROW)), row.prepare() as work:
                found = work if isinstance(work, dict) else self._timed(work, row)
                for key, value in found.items():
                    setattr(measured, key, value)
        except torch.OutOfMemoryError as error:
            asked = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
            measured.problem = f"does not fit: asked for {asked[1] if asked else 'more'}"
        except TimeoutError:
            measured.problem = f"took more than {min(left, SECONDS_OF_A_ROW):.0f} s"
        except Exception as error:
            measured.problem = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        self._clean()
        self.rows.append(measured)
        self._compare()
        self.write()
        print(line(measured), flush=True)

    def _timed(self, step: Callable[[], object], row: Row) -> dict[str, Any]:
        """Median of ten; the step leaves its gradients, which the next one drops first."""
        times, host = [], []
        for _ in range(3):
            step()
        row.forget()
        before = self._memory(reset=True)
        for _ in range(1 if self.device == "cpu" else 10):
            row.forget()
            self._wait()
            start = time.perf_counter()
            if self.device == "cpu":
                step()
                times.append(1e3 * (time.perf_counter() - start))
            else:
                first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                first.record()
                step()
                last.record()
                host.append(1e3 * (time.perf_counter() - start))
                self._wait()
                times.append(first.elapsed_time(last))
        ms = statistics.median(times)
        found: dict[str, Any] = {"ms": ms, "least_ms": min(times), "most_ms": max(times)}
        found["host_ms"] = statistics.median(host) if host else None
        if "graph" not in row.mode:  # which has its memory before and after the step
            found["mib"] = (self._memory() - before) / 2**20
        if row.flop:  # of a whole step
            found["images_per_second"] = row.batch / ms * 1e3
            found["share_of_peak"] = row.flop / (ms * 1e-3) / (self.facts["peak_tflops"] * 1e12)
        return found

    def _compare(self) -> None:
        """The ratio of each row to the official formulation, or the plain loop, of its size."""
        for m in self.rows:
            base = "plain loop" if m.what.startswith("step") else "official, IEEE float32"
            peers = [
                p.ms for p in self.rows
                if (p.what, p.batch, p.classes, p.mode) == (m.what, m.batch, m.classes, base)
            ]  # fmt: skip
            if peers and peers[0] and m.ms:
                m.ratio_to_official = peers[0] / m.ms

    def write(self) -> None:
        content = {**self.facts, "rows": [asdict(row) for row in self.rows]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(content, indent=1) + "\n")
        self.path.with_suffix(".md").write_text(table(self.facts, self.rows))

    def _clean(self) -> None:
        gc.collect()  # a graph and its memory are in a circle of references
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _memory(self, reset: bool = False) -> int:
        if self.device == "cpu":
            return 0
        if reset:
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        return torch.cuda.max_memory_allocated()

    @staticmethod
    def _key(row: Any) -> tuple[Any, ...]:
        return row.what, row.mode, row.batch, row.classes


def facts(device: str) -> dict[str, Any]:
    """What the rows were measured on; the peak is that of a product of 8,192 x 8,192 in bf16."""
    machine = hardware()
    found = {
        "card": machine["gpu"] or "cpu", "driver": None, "torch": torch.__version__,
        "triton": None, "cpu": f"{machine['cpu']}, {machine['cores']} cores",
        "date": machine["date"], "peak_tflops": 1.0,
    }  # fmt: skip
    with contextlib.suppress(ImportError):
        import triton

        found["triton"] = triton.__version__
    if device == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            found["driver"] = subprocess.run(
                query, capture_output=True, text=True, check=True, timeout=20
            ).stdout.split()[0]
        a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
        for _ in range(3):
            a @ a
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(10):
            a @ a
        last.record()
        torch.cuda.synchronize()
        found["peak_tflops"] = 10 * 2 * 8192**3 / (first.elapsed_time(last) * 1e-3) / 1e12
    return found


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """TimeoutError in what takes longer."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def line(row: Measured) -> str:
    name = f"{row.what}, {row.mode}, B {row.batch}, C {row.classes:,}"
    if row.problem:
        return f"{name}: {row.problem}"
    parts = [f"{row.ms:.3f} ms" if row.ms else "", f"{row.mib:.0f} MiB" if row.mib else ""]
    if row.images_per_second:
        parts.append(f"{row.images_per_second:,.0f} images/s")
    if row.data_wait_share is not None:
        parts.append(f"data-wait share {100 * row.data_wait_share:.1f} %")
    if row.ratio_to_official:
        parts.append(f"{row.ratio_to_official:.2f} x")
    return f"{name}: {', '.join(p for p in parts if p)}"


def table(known: dict[str, Any], rows: list[Measured]) -> str:
    """The rows as Markdown."""
    head = (
        f"{known['card']}, driver {known['driver']}, torch {known['torch']}, Triton "
        f"{known['triton']}, {known['cpu']}, {known['date']}. Written by benchmarks/gpu.py; x is "
        "times faster than the official formulation in IEEE float32, for steps than the plain loop."
        "\n\n| what | mode | B | C | ms | host ms | MiB | images/s | share of peak | x |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )

    def cell(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return head + "".join(
        f"| {r.what} | {r.mode} | {r.batch:,} | {r.classes:,} | "
        f"{r.problem or cell(r.ms, '.3f')} | {cell(r.host_ms, '.2f')} | {cell(r.mib, ',.0f')} | "
        f"{cell(r.images_per_second, ',.0f')} | {cell(r.share_of_peak, '.2f')} | "
        f"{cell(r.ratio_to_official, '.2f')} |\n"
        for r in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--parts", nargs="+", default=["head", "step", "run"])
    parser.add_argument("--resume", type=Path, help="a result file to continue")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--dry", action="store_true", help="small sizes on the CPU")
    arguments = parser.parse_args()
    device = "cpu" if arguments.dry else "cuda"
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no NVIDIA GPU here; --dry runs small sizes on the CPU")
    torch.set_float32_matmul_precision("highest")
    backend = "gloo" if arguments.dry else "nccl"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    path = arguments.resume or arguments.out / f"gpu-{card_name()}-{date.today().isoformat()}.json"
    bench = Bench(path, 60 * arguments.minutes, device)
    if arguments.resume:
        bench.read(arguments.resume)
    for row in rows_of(arguments.parts, device):
        bench.run(row)
    print(f"written to {path}", flush=True)
    os._exit(0)  # NCCL's threads would have the last word


if __name__ == "__main__":
    main()
