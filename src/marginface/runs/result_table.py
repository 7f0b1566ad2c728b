"""A run's result as a table in the terminal."""

from rich.console import Console
from rich.table import Table

from marginface.runs.comparison import _shown

_COLUMNS = ("accuracy", "auc", "eer", "tar@1e-2", "threshold")


def print_result(result: dict[str, float]) -> None:
    """The verification sets of a run, with the untrained network's accuracy beside."""
    sets = [key.split("/")[1] for key in result if key.startswith("val/") and key.endswith("/auc")]
    if not sets:
        print("nothing was verified: no data.pairs and no held-out identities")
        return
    table = Table(title="verification on unseen identities (percent; threshold as a cosine)")
    for column in ("set", "accuracy", "untrained", *_COLUMNS[1:]):
        table.add_column(column, justify="left" if column == "set" else "right")
    for name in sets:
        untrained = result.get(f"untrained/{name}/accuracy")
        accuracy = f"{100 * result[f'val/{name}/accuracy']:.2f}"
        spread = f" ± {100 * result[f'val/{name}/accuracy_std']:.2f}"
        rest = [_shown(column, result.get(f"val/{name}/{column}")) for column in _COLUMNS[1:]]
        table.add_row(name, accuracy + spread, _shown("accuracy", untrained), *rest)
    Console(width=110).print(table)
