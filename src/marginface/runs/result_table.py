"""A run's result as a table in the terminal."""

from marginface.utils.tables import make_table, metric_cell, print_table

_COLUMNS = ("accuracy", "auc", "eer", "tar@1e-2", "threshold")


def print_result(result: dict[str, float]) -> None:
    """The verification sets of a run, next to the untrained network's accuracy."""
    sets = [key.split("/")[1] for key in result if key.startswith("val/") and key.endswith("/auc")]
    if not sets:
        print(
            "nothing was verified: no data.pairs and no held-out identities, or "
            "trainer.limit_val_batches leaves images out"
        )
        return
    rows = []
    for name in sets:
        accuracy = metric_cell("accuracy", result[f"val/{name}/accuracy"])
        spread = metric_cell("accuracy", result[f"val/{name}/accuracy_std"])
        untrained = metric_cell("accuracy", result.get(f"untrained/{name}/accuracy"))
        rest = [metric_cell(column, result.get(f"val/{name}/{column}")) for column in _COLUMNS[1:]]
        rows.append((name, f"{accuracy} ± {spread}", untrained, *rest))
    title = "verification of pairs (percent; threshold as a cosine)"
    print_table(make_table(("set", "accuracy", "untrained", *_COLUMNS[1:]), rows, title))
