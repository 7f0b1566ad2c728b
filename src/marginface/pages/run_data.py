"""What a run left on disk, as its page needs it."""

from pathlib import Path
from typing import Any, NamedTuple

from marginface.runs.folder import RunFolder
from marginface.runs.metrics import Columns, known, read_metrics
from marginface.runs.status import Status, read_status

MEAN_ACCURACY = "val/mean/accuracy"


class RunData(NamedTuple):
    """A run read from its folder; parts that it has not written yet are empty."""

    run: RunFolder
    config: dict[str, Any]
    info: dict[str, Any]
    columns: Columns
    curves: dict[str, Any]
    result: dict[str, float]
    status: Status

    @property
    def sets(self) -> list[str]:
        """Names of the verification sets, in the order of the log."""
        return [
            name.split("/")[1]
            for name in self.columns
            if name.startswith("val/") and name.endswith("/auc")
        ]

    def best(self) -> tuple[int, float] | None:
        """Steps done and mean accuracy of the best validation; None before the first."""
        return _best(self.columns)


def best_validation(run: RunFolder) -> tuple[int, float] | None:
    """The same of a run folder, from its log alone.

    Raises:
        InputError: a log that cannot be read.
    """
    if not run.metrics.is_file():
        return None
    return _best(read_metrics(run.metrics, only=[MEAN_ACCURACY]))


def _best(columns: Columns) -> tuple[int, float] | None:
    steps, accuracy = known(columns, MEAN_ACCURACY)
    if not len(steps):
        return None
    place = int(accuracy.argmax())  # the first of equal ones, as best.ckpt is
    return int(steps[place]) + 1, float(accuracy[place])


def read_run(folder: Path) -> RunData:
    """Everything a page says of a run.

    Raises:
        MissingInputError: a folder that is not one of a run.
        InputError: a file in it that cannot be read.
    """
    run = RunFolder(folder)
    config = run.read_config()
    columns = read_metrics(run.metrics) if run.metrics.is_file() else {}
    return RunData(
        run, config, run.read_info(), columns, run.read_curves(), run.read_result(),
        read_status(run),
    )  # fmt: skip
