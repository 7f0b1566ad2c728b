"""The metrics.csv logger: one row per step, flushed at once, continued by a resumed run."""

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from marginface.utils.files import atomic_write


class MetricsCsv(Logger):
    """A Lightning logger that keeps one flushed CSV row per step.

    Lightning's own CSVLogger holds back 100 rows and starts a new file when a run resumes.

    Args:
        path: of the file; an existing one is continued.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._rows: dict[int, dict[str, str]] | None = None  # read when first needed
        self._columns: list[str] = ["step"]

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """config.yaml in the run folder has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write the row of `step`, or add to it when it is there already."""
        assert step is not None, "every row needs its step"
        rows = self._read()
        is_next = not rows or step > next(reversed(rows))
        # repr keeps every digit of a float.
        row = {"step": str(step)} | {key: repr(value) for key, value in metrics.items()}
        new_columns = [key for key in row if key not in self._columns]
        rows[step] = rows.get(step, {}) | row
        if is_next and not new_columns and self.path.is_file():
            with self.path.open("a") as file:
                file.write(self._lines([rows[step]]))
        else:
            self._columns += new_columns
            self._write_all()

    @rank_zero_only
    def drop_rows_from(self, step: int) -> None:
        """Forget rows of steps that will be done again."""
        rows = self._read()
        redone = [known for known in rows if known >= step]
        for known in redone:
            del rows[known]
        if redone:
            self._write_all()

    def _read(self) -> dict[int, dict[str, str]]:
        if self._rows is None:
            self._rows = {}
            if self.path.is_file():
                text = self.path.read_text()
                # A process killed while writing leaves a last line without its end.
                complete = text[: text.rfind("\n") + 1]
                reader = csv.DictReader(io.StringIO(complete))
                self._columns = list(reader.fieldnames or self._columns)
                self._rows = {int(row["step"]): row for row in reader}
                if complete != text:
                    self._write_all()
        return self._rows

    def _write_all(self) -> None:
        with atomic_write(self.path, "w") as file:
            file.write(self._lines([dict(zip(self._columns, self._columns, strict=True))]))
            file.write(self._lines(self._read().values()))

    def _lines(self, rows: Any) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        writer.writerows(rows)
        return text.getvalue()
