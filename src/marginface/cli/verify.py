"""`marginface verify`: whether two photographs show one person, or many pairs of them."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from marginface.cli.errors import clear_errors
from marginface.cli.model_options import FaceOptions, ModelArgument, UseOptions, takes
from marginface.utils.errors import InputError


@takes(using=UseOptions, finding=FaceOptions)
def verify_command(
    model: ModelArgument,
    first: Annotated[Path | None, typer.Argument(help="photograph")] = None,
    second: Annotated[Path | None, typer.Argument(help="photograph")] = None,
    fmr: Annotated[float, typer.Option(help="false match rate whose threshold is taken")] = 1e-3,
    threshold: Annotated[
        float | None, typer.Option(help="a cosine instead of the model's threshold")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help=".csv of pairs: first,second (same is kept if there)")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="for --pairs: new .csv of scores")] = None,
    root: Annotated[
        Path | None, typer.Option(help="for --pairs: folder that its paths are relative to")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    *,
    using: UseOptions,
    finding: FaceOptions,
) -> None:
    """Say whether two photographs show one person; exit code 0 for yes, 1 for no."""
    with clear_errors():
        from marginface.utils.console import rank_zero_warn

        _check_arguments(first, second, pairs, out)
        opened = using.load(model, **finding.photos())
        limit = opened.limit(fmr, threshold)
        if limit.caution is not None:
            rank_zero_warn(limit.caution)
        if pairs is not None:
            from marginface.inference.pair_scores import score_pairs

            assert out is not None
            print(score_pairs(opened, pairs, out, limit, root).as_text(as_json))
            return
        assert first is not None
        assert second is not None
        found = opened.verify(first, second, fmr=fmr, threshold=threshold)
        print(json.dumps(dataclasses.asdict(found)) if as_json else found)
    raise typer.Exit(0 if found.same else 1)


def _check_arguments(
    first: Path | None, second: Path | None, pairs: Path | None, out: Path | None
) -> None:
    if pairs is not None and first is not None:
        raise InputError(f"--pairs names its photographs itself; leave {first} out")
    if pairs is None and (first is None or second is None):
        raise InputError("give two photographs, or --pairs pairs.csv --out scores.csv")
    if (pairs is None) != (out is None):
        raise InputError("--pairs and --out go together: pairs to read, scores to write")
    if out is not None and out.exists():
        raise InputError(f"{out} exists; choose another name, nothing is overwritten")
