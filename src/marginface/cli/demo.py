"""`marginface demo`: a page on this machine to try a model."""

import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.cli.model_options import FaceOptions, ModelArgument, UseOptions, takes


@takes(using=UseOptions, finding=FaceOptions)
def demo_command(
    model: ModelArgument,
    gallery: Annotated[
        Path | None, typer.Option(help="file that marginface enroll made, to search in as well")
    ] = None,
    port: Annotated[int, typer.Option(help="of 127.0.0.1; 0: any that is free")] = 7860,
    fmr: Annotated[float, typer.Option(help="false match rate of two photographs")] = 1e-3,
    fpir: Annotated[float, typer.Option(help="share of strangers that may be named")] = 0.01,
    threshold: Annotated[float | None, typer.Option(help="a cosine instead of both")] = None,
    *,
    using: UseOptions,
    finding: FaceOptions,
) -> None:
    """Serve a page to this machine alone: compare two photographs, or find people in one."""
    with clear_errors():
        from marginface.inference.demo import served
        from marginface.inference.gallery import Gallery

        opened = using.load(model, **finding.photos())
        people = nullcontext() if gallery is None else Gallery.open(gallery, opened)
        with (
            people as among,
            served(opened, among, port=port, fmr=fmr, fpir=fpir, threshold=threshold) as page,
        ):
            print(f"open {page.local_url} (only this machine can); Ctrl+C ends it", flush=True)
            for number in (signal.SIGTERM, signal.SIGHUP):  # pictures are deleted then, too
                signal.signal(number, signal.default_int_handler)
            try:
                while True:
                    time.sleep(1)
            except KeyboardInterrupt:
                print("ended; nothing was kept")
