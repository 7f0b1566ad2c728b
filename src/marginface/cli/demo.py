"""`marginface demo`: a page on this machine to try a model."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.cli.model_options import (
    CheckpointOption,
    Describe,
    DetectorOption,
    DetectorSize,
    EvaluationOption,
    Flip,
    ModelArgument,
    Plugins,
    Runtime,
    Yunet,
    input_fields,
)


def demo_command(
    model: ModelArgument,
    gallery: Annotated[
        Path | None, typer.Option(help="file that marginface enroll made, to search in as well")
    ] = None,
    port: Annotated[int, typer.Option(help="of 127.0.0.1; 0: any that is free")] = 7860,
    fmr: Annotated[float, typer.Option(help="false match rate of two photographs")] = 1e-3,
    fpir: Annotated[float, typer.Option(help="share of strangers that may be named")] = 0.01,
    threshold: Annotated[float | None, typer.Option(help="a cosine instead of both")] = None,
    evaluation: EvaluationOption = None,
    runtime: Runtime = "auto",
    flip: Flip = None,
    checkpoint: CheckpointOption = "best",
    describe: Describe = None,
    plugins: Plugins = None,
    detector: DetectorOption = "yunet",
    yunet: Yunet = None,
    detector_size: DetectorSize = 640,
) -> None:
    """Serve a page to this machine alone: compare two photographs, or find people in one."""
    with clear_errors():
        from marginface.inference.demo import served
        from marginface.inference.gallery import Gallery
        from marginface.inference.model import load

        opened = load(
            model, runtime=runtime, checkpoint=checkpoint, flip=flip,  # type: ignore[arg-type]
            input=input_fields(describe), plugins=plugins or (), evaluation=evaluation,
            detector=detector, yunet=yunet, detector_size=detector_size,
        )  # fmt: skip
        people = nullcontext() if gallery is None else Gallery.open(gallery, opened)
        with (
            people as among,
            served(opened, among, port=port, fmr=fmr, fpir=fpir, threshold=threshold) as page,
        ):
            print(f"open {page.local_url} (only this machine can); Ctrl+C ends it", flush=True)
            try:
                while True:
                    time.sleep(1)
            except KeyboardInterrupt:
                print("ended; nothing was kept")
