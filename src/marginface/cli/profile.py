"""`marginface profile`: what a network costs on this machine, in several runtimes."""

import platform
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.cli.model_options import ModelArgument, SourceOptions, takes
from marginface.utils.errors import InputError


@takes(source=SourceOptions)
def profile_command(
    model: ModelArgument,
    batch: Annotated[str, typer.Option(help="images at once")] = "1,32",
    threads: Annotated[str, typer.Option(help="of the processor")] = "1",
    runtimes: Annotated[
        str | None,
        typer.Option(help="torch,bf16,onnxruntime,openvino,int8; the first is compared with"),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="for int8: folder of aligned faces")
    ] = None,
    memory: Annotated[bool, typer.Option(help="measure memory, in a process for each row")] = True,
    out: Annotated[Path | None, typer.Option(help="new .json file with the same")] = None,
    *,
    source: SourceOptions,
) -> None:
    """Time and memory of a network; the runtimes take turns, so their ratios can be trusted."""
    with clear_errors():
        from marginface.inference.aligned_faces import read_aligned
        from marginface.inference.profile import Timing, network_size, profile
        from marginface.utils.files import write_json
        from marginface.utils.tables import make_table, print_line, print_table

        if out is not None and out.exists():
            raise InputError(f"{out} exists; choose another name, nothing is overwritten")
        file = source.open(model)
        faces = None if calibration is None else read_aligned(calibration, file.input, 500)[0]
        chosen = runtimes.split(",") if runtimes else _usual(file.path.suffix == ".onnx")
        size = network_size(file)
        rows: list[Timing] = profile(
            file,
            runtimes=chosen,
            batches=_numbers("--batch", batch),
            threads=_numbers("--threads", threads),
            calibration=faces,
            memory=memory,
            plugins=source.plugins or (),
        )
        print_line(
            f"{file.name}: {_size_words(size.parameters, size.multiply_adds)}"
            f"{size.file_bytes / 1e6:.1f} MB file"
        )
        print_table(make_table(_HEADINGS, map(_cells, rows), f"on {_processor()}"))
        if out is not None:
            content = {"processor": _processor(), "model": str(file.path), **asdict(size)}
            write_json(out, content | {"rows": [asdict(row) for row in rows]})


def _size_words(parameters: int | None, multiply_adds: int | None) -> str:
    if parameters is None or multiply_adds is None:
        return ""
    return (
        f"{parameters / 1e6:.2f} million parameters, {multiply_adds / 1e9:.2f} billion "
        "multiply-adds an image, "
    )


_HEADINGS = ("runtime", "computes in", "batch", "threads", "median ms", "p95 ms", "images/s",
             "ratio", "min cosine", "peak MiB")  # fmt: skip


def _cells(row: "object") -> tuple[str, ...]:
    facts = vars(row)
    peak = "-" if facts["peak_mib"] is None else f"{facts['peak_mib']:.0f}"
    return (
        facts["runtime"],
        facts["computes_in"],
        str(facts["batch"]),
        str(facts["threads"]),
        f"{facts['median_ms']:.2f}",
        f"{facts['p95_ms']:.2f}",
        f"{facts['images_per_second']:.1f}",
        f"{facts['ratio']:.2f}",
        f"{facts['min_cosine']:.6f}",
        peak,
    )


def _usual(is_graph: bool) -> list[str]:
    names = ["onnxruntime"] if is_graph else ["torch", "bf16", "onnxruntime"]
    return names + ["openvino"] * (find_spec("openvino") is not None)


def _numbers(option: str, words: str) -> list[int]:
    try:
        return [int(word) for word in words.split(",")]
    except ValueError as error:
        raise InputError(f"{option} {words}: expected whole numbers such as 1,32") from error


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
