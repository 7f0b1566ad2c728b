"""An evaluation on disk: a page, result.json, evaluation.json, scores.npz, a row in all.csv."""

import csv
import fcntl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from marginface.data.image_dataset import ImageDataset
from marginface.evaluation.benchmarks.base import BenchmarkResult
from marginface.evaluation.page import METRIC_HEADINGS, evaluation_page, shown
from marginface.metrics.groups import GroupRates
from marginface.metrics.operating_points import operating_points
from marginface.utils.files import atomic_write, write_json
from marginface.utils.tables import make_table, print_line, print_table

REPORT, RESULT, FACTS, SCORES = "report.html", "result.json", "evaluation.json", "scores.npz"
THRESHOLDS = "thresholds.json"


@dataclass
class Evaluation:
    """What was evaluated and what came out.

    Attributes:
        facts: of the network and of how images were embedded; next to every number.
        results: of the benchmarks.
    """

    facts: dict[str, Any]
    results: list[BenchmarkResult]

    def result(self) -> dict[str, float]:
        """Flat: <benchmark>/<metric>, with /low and /high."""
        return {
            f"{benchmark.name}/{key}": value
            for benchmark in self.results
            for name, estimate in benchmark.metrics.items()
            for key, value in estimate.metrics(name).items()
        }

    def write(
        self, folder: str | Path, fmrs: Sequence[float], faces: Mapping[str, ImageDataset]
    ) -> dict[str, float]:
        """Write everything into `folder`; returns what result.json holds.

        Args:
            folder: of this evaluation.
            fmrs: false match rates to give thresholds for.
            faces: images by benchmark, to show the hardest pairs of; biometric data.
        """
        folder, result = Path(folder), self.result()
        write_json(folder / RESULT, result)
        benchmarks = [
            {
                "name": benchmark.name,
                "protocol": benchmark.protocol,
                "counts": benchmark.counts,
                "cautions": benchmark.cautions,
                "pairs_sha256": benchmark.pairs_sha256,
                "tables": [table._asdict() for table in benchmark.tables],
                "groups": [_group_facts(group) for group in benchmark.groups],
                "error_versus_reject": benchmark.reject and [c.tolist() for c in benchmark.reject],
                "edc_pauc": benchmark.discard_area and benchmark.discard_area._asdict(),
                "thresholds": []
                if benchmark.pairs is None
                else [vars(point) for point in operating_points(benchmark.pairs, fmrs)],
            }
            for benchmark in self.results
        ]
        write_json(folder / FACTS, {"facts": self.facts, "benchmarks": benchmarks})
        write_json(folder / THRESHOLDS, self._carried())
        arrays = {
            f"{benchmark.name}/{key}": column
            for benchmark in self.results
            if benchmark.decisions is not None
            for key, column in benchmark.decisions._asdict().items()
        }
        with atomic_write(folder / SCORES) as file:
            np.savez_compressed(file, **arrays)
        evaluation_page(self.facts, self.results, fmrs, faces).write(folder / REPORT)
        return result

    def _carried(self) -> dict[str, Any]:
        """What a model carries of this evaluation, see `marginface export --evaluation`."""
        how = {"flip": self.facts["flip"] != "none", "precision": self.facts["precision"]}
        norms = [b.min_norm for b in self.results if b.min_norm is not None]
        return {
            "weights_sha256": self.facts["weights_sha256"],
            "digest": self.facts["digest"],
            "flip": how["flip"],
            "min_norm": min(norms, default=None),
            "thresholds": [vars(t) | how for b in self.results for t in b.thresholds],
        }

    def append_to(self, table: str | Path, folder: str | Path) -> None:
        """Add a row to a .csv of all evaluations; columns that are new to it are added."""
        table = Path(table)
        table.parent.mkdir(parents=True, exist_ok=True)
        row = {
            "time": datetime.now().isoformat(timespec="seconds"),
            "folder": str(folder),
            **{key: str(self.facts[key]) for key in ("checkpoint", "network", "flip", "precision")},
        }
        # Names of files need not be UTF-8; what is not becomes a question mark.
        row = {key: value.encode("utf-8", "replace").decode() for key, value in row.items()}
        row |= {key: repr(float(value)) for key, value in self.result().items()}
        with (table.parent / f".{table.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # evaluations may end at the same time
            rows: list[dict[str, str]] = []
            if table.is_file():
                with table.open(newline="") as file:
                    rows = list(csv.DictReader(file))
            columns = list(dict.fromkeys(key for entry in [*rows, row] for key in entry))
            with atomic_write(table, "w") as file:
                writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
                writer.writeheader()
                writer.writerows([*rows, row])


def _group_facts(group: GroupRates) -> dict[str, Any]:
    rates = {"fnmr": group.fnmr, "fmr": group.fmr}
    known = {name: rate._asdict() if rate else None for name, rate in rates.items()}
    return {"group": group.group, "genuine": group.genuine, "impostor": group.impostor, **known}


def print_results(evaluation: Evaluation) -> None:
    """The protocol and all estimates as a table."""
    for benchmark in evaluation.results:
        counts = ", ".join(f"{value:,} {name}" for name, value in benchmark.counts.items())
        print_line(f"\n{benchmark.name}: {counts}")
        rows = [(name, *shown(name, estimate)) for name, estimate in benchmark.metrics.items()]
        print_table(make_table(METRIC_HEADINGS, rows))
        for line in benchmark.protocol:
            print_line(f"  {line}")
