"""What a network costs: parameters, multiply-adds, and time and memory in several runtimes."""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from marginface.data.preprocessing import normalize_images
from marginface.inference.model_file import ModelFile
from marginface.inference.onnx import open_onnx
from marginface.inference.onnx_precision import graph_precision, to_int8
from marginface.inference.runtimes import OpenVinoNetwork
from marginface.utils.errors import InputError, check_choice
from marginface.utils.optional_packages import require_package
from marginface.utils.plugins import load_plugins

RUNTIMES = ("torch", "bf16", "onnxruntime", "openvino", "int8")
_ROUNDS, _WARM_UP = 9, 2
_SHORTEST = 0.05  # seconds of a round, at least


@dataclass(frozen=True)
class Size:
    """What does not depend on a runtime.

    Attributes:
        parameters: numbers that were trained; None for a graph.
        multiply_adds: of one image; None for a graph.
        file_bytes: of the file.
    """

    parameters: int | None
    multiply_adds: int | None
    file_bytes: int


@dataclass(frozen=True)
class Timing:
    """One row.

    Attributes:
        runtime: of RUNTIMES.
        computes_in: the precision, as the runtime says.
        batch, threads: images at once, and threads of the processor.
        median_ms, p95_ms: of a batch.
        images_per_second: at the median.
        ratio: to the first runtime of the same batch and threads, in the same rounds; above 1 is
            faster.
        min_cosine: to the first runtime's embeddings.
        peak_mib: memory of a process that computes only this, with Python and its packages.
    """

    runtime: str
    computes_in: str
    batch: int
    threads: int
    median_ms: float
    p95_ms: float
    images_per_second: float
    ratio: float
    min_cosine: float
    peak_mib: float | None


def network_size(model: ModelFile) -> Size:
    """Parameters, multiply-adds and bytes of a network."""
    size = model.path.stat().st_size
    if model.path.suffix == ".onnx":
        return Size(None, None, size)
    from torch.utils.flop_counter import FlopCounterMode

    network = model.build().eval()
    side = model.image_size
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, side, side))
    parameters = sum(p.numel() for p in network.parameters())
    return Size(parameters, counter.get_total_flops() // 2, size)


def profile(
    model: ModelFile,
    *,
    runtimes: Sequence[str],
    batches: Sequence[int],
    threads: Sequence[int],
    calibration: NDArray[np.uint8] | None = None,
    memory: bool = True,
    plugins: Sequence[str] = (),
    on_row: Callable[[Timing], None] = lambda row: None,
) -> list[Timing]:
    """Time a network in several runtimes, which take turns in every round.

    Args:
        model: weights, or a float ONNX file (which torch cannot run).
        runtimes: of RUNTIMES; the first is what others are compared with.
        batches, threads: to measure with.
        calibration: aligned faces (N, S, S, 3) for int8.
        memory: start a process for each runtime to measure its memory.
        plugins: modules that define the network.
        on_row: called with each row when it is done.

    Raises:
        InputError: a runtime that is not there or does not fit the file.
    """
    _check(model, runtimes, batches, threads, calibration)
    before = torch.get_num_threads()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        graphs = _graphs(model, runtimes, calibration, Path(folder))
        try:
            for count in threads:
                torch.set_num_threads(count)
                networks = {r: _network(model, r, graphs.get(r)) for r in runtimes}
                for batch in batches:
                    rows += _rows(model, networks, graphs, batch, count, memory, plugins, on_row)
        finally:
            torch.set_num_threads(before)
    return rows


def _check(
    model: ModelFile,
    runtimes: Sequence[str],
    batches: Sequence[int],
    threads: Sequence[int],
    calibration: NDArray[np.uint8] | None,
) -> None:
    for runtime in runtimes:
        check_choice("runtime", runtime, RUNTIMES)
    for name, numbers in (("--batch", batches), ("--threads", threads)):
        if not numbers or min(numbers) < 1:
            raise InputError(f"{name} takes whole numbers from 1, got {list(numbers)}")
    is_graph = model.path.suffix == ".onnx"
    if is_graph and {"torch", "bf16"} & set(runtimes):
        raise InputError(f"{model.path} is a graph; --runtimes onnxruntime,openvino run it")
    if is_graph and model.description.layout == "uint8":
        raise InputError(f"{model.path} takes bytes; profile the run, or a float graph")
    if "int8" in runtimes and calibration is None:
        raise InputError("int8 needs --calibration FOLDER of 100 or more aligned faces")


def _graphs(
    model: ModelFile,
    runtimes: Sequence[str],
    calibration: NDArray[np.uint8] | None,
    folder: Path,
) -> dict[str, Path]:
    """ONNX files by runtime, for those that need one."""
    needed = {"onnxruntime", "openvino", "int8"} & set(runtimes)
    if not needed:
        return {}
    from marginface.inference.export_onnx import network_images
    from marginface.inference.onnx_graph import DEFAULT_OPSET, graph_bytes, make_graph

    path = model.path
    if path.suffix != ".onnx":
        path = folder / "float.onnx"
        graph = make_graph(model.build(), model.image_size, as_bytes=False, opset=DEFAULT_OPSET)
        path.write_bytes(graph_bytes(graph))
    found = dict.fromkeys(needed, path)
    if "int8" in needed:
        onnx = require_package("onnx", extra="export")
        assert calibration is not None
        images = network_images(calibration, model.description)
        found["int8"] = folder / "int8.onnx"
        quantized = to_int8(onnx.load(str(path)), images, "per-channel")
        found["int8"].write_bytes(graph_bytes(quantized))
    return found


def _network(model: ModelFile, runtime: str, graph: Path | None) -> nn.Module:
    if graph is None:
        network = model.build().eval().to(memory_format=torch.channels_last)
        return _Bf16(network) if runtime == "bf16" else network
    if runtime == "openvino":
        return OpenVinoNetwork(graph, takes_bytes=False)
    return open_onnx(graph).build()


class _Bf16(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found: Tensor = self.network(x).float()
        return found


def computes_in(runtime: str, network: nn.Module, graph: Path | None) -> str:
    """The precision a runtime says it computes in; onnxruntime's is that of the graph."""
    if runtime == "openvino":
        return str(getattr(network, "computes_in", "?"))
    if runtime == "bf16":
        if torch.cpu._is_amx_tile_supported():
            return "bf16 (AMX)"
        native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return "bf16" if native else "bf16 (this processor has no instruction for it)"
    return "fp32" if graph is None else graph_precision(graph)


def _rows(
    model: ModelFile,
    networks: dict[str, nn.Module],
    graphs: dict[str, Path],
    batch: int,
    threads: int,
    memory: bool,
    plugins: Sequence[str],
    on_row: Callable[[Timing], None],
) -> list[Timing]:
    images = _images(model, batch)
    seconds, embeddings = _take_turns(networks, images)
    first = next(iter(networks))
    rows = []
    for runtime, network in networks.items():
        median = statistics.median(seconds[runtime])
        peak = None
        if memory:
            peak = _peak(model, runtime, graphs.get(runtime), batch, threads, plugins)
        row = Timing(
            runtime,
            computes_in(runtime, network, graphs.get(runtime)),
            batch,
            threads,
            1e3 * median,
            1e3 * float(np.quantile(seconds[runtime], 0.95)),
            batch / median,
            statistics.median(a / b for a, b in zip(seconds[first], seconds[runtime], strict=True)),
            _least_cosine(embeddings[first], embeddings[runtime]),
            peak,
        )
        rows.append(row)
        on_row(row)
    return rows


def _least_cosine(one: Tensor, other: Tensor) -> float:
    a, b = (F.normalize(side.double(), eps=1e-300) for side in (one, other))
    return float((a * b).sum(1).min())


def _images(model: ModelFile, batch: int) -> Tensor:
    side = model.image_size
    pixels = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))  # fmt: skip
    return normalize_images(pixels, "rgb").contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def _take_turns(
    networks: dict[str, nn.Module], images: Tensor
) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Seconds of a batch in each round, by runtime, and the embeddings."""
    embeddings = {}
    repeats = {}
    for runtime, network in networks.items():
        for _ in range(_WARM_UP):
            embeddings[runtime] = network(images).float()
        start = time.perf_counter()
        network(images)
        repeats[runtime] = max(1, round(_SHORTEST / (time.perf_counter() - start)))
    seconds: dict[str, list[float]] = {runtime: [] for runtime in networks}
    for _ in range(_ROUNDS):
        for runtime, network in networks.items():
            start = time.perf_counter()
            for _ in range(repeats[runtime]):
                network(images)
            seconds[runtime].append((time.perf_counter() - start) / repeats[runtime])
    return seconds, embeddings


def _peak(
    model: ModelFile,
    runtime: str,
    graph: Path | None,
    batch: int,
    threads: int,
    plugins: Sequence[str],
) -> float:
    """MiB of a process of its own that embeds one batch."""
    facts = {
        "path": str(model.path),
        "settings": None if model.recognized or model.path.suffix == ".ckpt" else model.settings,
        "runtime": runtime,
        "graph": None if graph is None else str(graph),
        "batch": batch,
        "threads": threads,
        "plugins": list(plugins),
    }
    command = [sys.executable, "-m", "marginface.inference.profile", json.dumps(facts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"measuring the memory of {runtime} failed: {last}")
    return float(done.stdout.strip().splitlines()[-1])


def _measure_memory(facts: dict[str, Any]) -> float:
    from marginface.inference.open_model import open_model

    torch.set_num_threads(facts["threads"])
    if facts["plugins"]:
        load_plugins(facts["plugins"])
    model = open_model(facts["path"], facts["settings"] or None)
    graph = None if facts["graph"] is None else Path(facts["graph"])
    network = _network(model, facts["runtime"], graph)
    with torch.inference_mode():
        network(_images(model, facts["batch"]))
    return _highest_mib()


def _highest_mib() -> float:
    """Most memory this process has had; getrusage would count what its parent had as well."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1]) / 1024
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    print(_measure_memory(json.loads(sys.argv[1])))
