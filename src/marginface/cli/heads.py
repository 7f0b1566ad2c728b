"""`marginface heads`: list them, draw their curves, explain what their parameters mean."""

import math
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.table import Table

from marginface.classifier.centers import check_sizes
from marginface.classifier.losses import ClassificationLoss
from marginface.cli.errors import clear_errors
from marginface.config.resolve import own_plugins
from marginface.heads import Margin, create_margin, list_heads
from marginface.heads.analysis.advisor import advise
from marginface.heads.analysis.catalog import head_info, heads_page
from marginface.heads.analysis.curves import head_curves
from marginface.utils.errors import InputError
from marginface.utils.files import atomic_write
from marginface.utils.plugins import load_plugins
from marginface.utils.tables import make_table, print_table

app = typer.Typer(help=__doc__)

Settings = Annotated[
    list[str] | None, typer.Option("--set", help="a parameter of the head, for example k=0.6")
]


@app.callback(invoke_without_command=True)
def list_all(
    context: typer.Context,
    plugin: Annotated[
        list[str] | None, typer.Option(help="module of your own to import: my_package.heads")
    ] = None,
) -> None:
    """List the margin heads: formula, paper, defaults."""
    with clear_errors():
        load_plugins([*own_plugins(), *(plugin or [])])
    if context.invoked_subcommand is not None:
        return
    for name in list_heads():
        info = head_info(name)
        parameters = ", ".join(f"{k}={v}" for k, v in info.defaults.items())
        traits = [f"gradient {info.gradient}", f"loss {info.loss}"]
        if info.needs_norm:
            traits.append("needs the norm")
        if info.changes_negatives:
            traits.append("changes negatives")
        if info.state:
            traits.append(f"state {', '.join(info.state)}")
        typer.echo(f"{name} ({info.year or 'baseline'})  {info.summary}")
        typer.echo(f"    {info.paper}\n    {'; '.join(traits)}\n    {parameters}")


@app.command()
def show(
    name: str,
    settings: Settings = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="another head to compare with, for example arcface or arcface:margin=0.6"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="SVG to draw; <name>.svg otherwise")] = None,
) -> None:
    """Draw f, implied margin, boundary margin and slope of a head, and print them as a table."""
    with clear_errors():
        margins = {" ".join([name, *(settings or [])]): _create(name, settings or [])[0]}
        for other in against if against is not None else ["normface", "arcface"]:
            other_name, _, parameters = other.partition(":")
            margins[other.replace(":", " ")], _ = _create(
                other_name, parameters.split(",") if parameters else []
            )
        from marginface.heads.analysis.figure import heads_figure

        path = out or Path(f"{name}.svg")
        heads_figure(margins, path)
        for label, margin in margins.items():
            print_table(_table(label, margin))
        typer.echo(f"drawn: {path}")


@app.command("advise")
def advise_command(
    name: str,
    classes: Annotated[int, typer.Option(help="number of identities")],
    embedding_size: Annotated[int, typer.Option(help="length of the embeddings")] = 512,
    settings: Settings = None,
    precision: Annotated[str | None, typer.Option(help="trainer.precision")] = None,
) -> None:
    """Print what a head's parameters mean: first loss, solved angle, least scale, warnings."""
    with clear_errors():
        sizes = {"num_classes": classes, "embedding_size": embedding_size}
        check_sizes(**sizes)
        margin, loss = _create(name, settings or [], classes)
        for line in advise(margin, loss, **sizes, precision=precision).lines():
            typer.echo(line)


@app.command(hidden=True)
def page(out: Annotated[Path, typer.Argument(help="folder of the docs")]) -> None:
    """Write docs/heads.md and its pictures (`make docs`)."""
    from marginface.heads.analysis.figure import heads_figure

    with atomic_write(out / "heads.md") as file:
        file.write(heads_page().encode())
    for name in list_heads():
        others = [other for other in ("normface", "arcface") if other != name]
        margins = {each: _create(each, [])[0] for each in (name, *others)}
        (out / "images" / "heads").mkdir(parents=True, exist_ok=True)
        heads_figure(margins, out / "images" / "heads" / f"{name}.svg")


def _create(name: str, settings: list[str], classes: int = 2) -> tuple[Margin, ClassificationLoss]:
    for setting in settings:
        if "=" not in setting:
            raise InputError(f"--set takes key=value, for example k=0.6, got {setting!r}")
    try:
        parsed: Any = OmegaConf.to_container(OmegaConf.from_dotlist(settings))
    except OmegaConfBaseException as error:
        raise InputError(f"--set {' '.join(settings)}: {error}") from error
    margin, loss = create_margin(name, num_classes=classes, **parsed)
    return margin.eval(), loss


def _table(label: str, margin: Margin) -> Table:
    degrees = torch.arange(0, 181, 10, dtype=torch.float64)
    curves = head_curves(margin, degrees.deg2rad(), degrees.deg2rad())
    columns = [
        curves.target,
        curves.implied_margin.rad2deg(),
        curves.slope,
        curves.boundary_margin.rad2deg(),
    ]
    rows = [
        (f"{angle:.0f}", *(_cell(float(column[number])) for column in columns))
        for number, angle in enumerate(degrees)
    ]
    headings = ("angle", "f", "implied margin", "df/dcos", "boundary margin M(angle)")
    return make_table(headings, rows, label)


def _cell(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.4g}" if abs(value) > 1e-9 else "0"
