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
from marginface.evaluation.benchmarks.base import BenchmarkResult, HardPair
from marginface.metrics.bootstrap import Estimate
from marginface.metrics.groups import GroupRates
from marginface.metrics.operating_points import operating_points, transfer
from marginface.metrics.roc import det_curve
from marginface.metrics.scores import ScoredPairs
from marginface.metrics.verification import rate_name
from marginface.reporting.html_page import Page
from marginface.reporting.svg_charts import SERIES, Axis, Series, histogram_chart, line_chart
from marginface.utils.files import atomic_write, write_json
from marginface.utils.tables import interval_cell, make_table, metric_cell, print_line, print_table

REPORT, RESULT, FACTS, SCORES = "report.html", "result.json", "evaluation.json", "scores.npz"
THRESHOLDS = "thresholds.json"
METRIC_HEADINGS = ("metric (percent)", "value", "95 % interval")
_TRANSFERRED = (1e-2, 1e-3)


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
        self._page(fmrs, faces).write(folder / REPORT)
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

    def _page(self, fmrs: Sequence[float], faces: Mapping[str, ImageDataset]) -> Page:
        page = Page(f"Evaluation of {self.facts['network']}")
        page.table(list(self.facts.items()))
        for benchmark in self.results:
            _add_benchmark(page, benchmark, fmrs, faces.get(benchmark.name))
        scored = {o.name: o.pairs for o in self.results if o.pairs is not None}
        if len(scored) > 1:
            _transfers(page, scored)
        return page


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


def shown(name: str, estimate: Estimate) -> tuple[str, str]:
    """An estimate as printed: the value, its interval."""
    return metric_cell(name, estimate.value), interval_cell(name, estimate.low, estimate.high)


def _add_benchmark(
    page: Page, benchmark: BenchmarkResult, fmrs: Sequence[float], faces: ImageDataset | None
) -> None:
    page.heading(benchmark.name)
    for caution in benchmark.cautions:
        page.text(f"Warning: {caution}")
    for line in benchmark.protocol:
        page.text(line, "protocol")
    page.table(list(benchmark.counts.items()))
    rows = [(name, *shown(name, estimate)) for name, estimate in benchmark.metrics.items()]
    page.table(rows, METRIC_HEADINGS)
    if benchmark.pairs is not None:
        page.chart(score_histogram(benchmark.pairs))
        for chart in rate_charts({benchmark.name: benchmark.pairs}):
            page.chart(chart)
        _thresholds(page, benchmark.pairs, fmrs)
    for title, headings, table_rows in benchmark.tables:
        page.text(title)
        page.table(table_rows, headings)
    if benchmark.groups:
        _groups(page, benchmark.groups, benchmark.group_threshold)
    if benchmark.reject is not None:
        shares, fnmr = benchmark.reject
        page.chart(
            line_chart(
                "FNMR (threshold at FMR 1e-2) without the pairs of lowest quality (norm)",
                [Series("quality = norm of the embedding", shares, fnmr)],
                Axis("share of genuine pairs left out", 0.0, 1.0),
                Axis("FNMR", 0.0, max(float(fnmr.max()), 1e-3)),
            )
        )
    if faces is not None:
        _hardest(page, benchmark.hard, faces)


def score_histogram(pairs: ScoredPairs) -> str:
    """Genuine and impostor scores."""
    return histogram_chart(
        "scores of genuine and impostor pairs",
        {"genuine": pairs.genuine.cpu().numpy(), "impostor": pairs.impostor.cpu().numpy()},
        "score",
    )


def rate_charts(scored: Mapping[str, ScoredPairs]) -> list[str]:
    """ROC and DET, both over a logarithmic false match rate, of up to SERIES sets of scores."""
    curves = {name: det_curve(pairs) for name, pairs in list(scored.items())[:SERIES]}
    lowest = min(1 / len(pairs.impostor) for pairs in scored.values())
    x = Axis("false match rate", 10 ** np.floor(np.log10(min(lowest, 0.1))), 1.0, log=True)
    roc = [Series(name, far.numpy(), 1 - frr.numpy()) for name, (far, frr) in curves.items()]
    misses = [frr[frr > 0].min() for _, frr in curves.values() if (frr > 0).any()]
    least = min([0.1, *map(float, misses)])
    det = [Series(name, far.numpy(), frr.numpy()) for name, (far, frr) in curves.items()]
    y = Axis("false non-match rate", 10 ** np.floor(np.log10(least)), 1.0, log=True)
    return [
        line_chart("ROC", roc, x, Axis("true match rate", 0.0, 1.0)),
        line_chart("DET (detection error trade-off)", det, x, y),
    ]


def _thresholds(page: Page, pairs: ScoredPairs, fmrs: Sequence[float]) -> None:
    page.text(
        "Thresholds: accept cosines >= the threshold. A rate is supported when 30 false matches "
        "are expected (rule of 30); others are guesses from too few impostor pairs."
    )
    rows = [
        (
            rate_name(point.wanted),
            f"{point.threshold:.4f}",
            f"{point.fmr:.3g}",
            f"{point.fnmr:.4f}",
            point.false_matches,
            "yes" if point.supported else "NO, too few impostor pairs",
        )
        for point in operating_points(pairs, fmrs)
    ]
    headings = ("FMR wanted", "threshold", "FMR", "FNMR", "false matches", "supported")
    page.table(rows, headings)


def _groups(page: Page, groups: Sequence[GroupRates], threshold: float | None) -> None:
    page.text(f"Groups at the common threshold {threshold:.4f} (FMR 1e-2 over all pairs), percent")
    rows = [
        (
            group.group,
            group.genuine,
            " ".join(shown("fnmr", group.fnmr)) if group.fnmr else "no genuine pair",
            group.impostor,
            " ".join(shown("fmr", group.fmr)) if group.fmr else "no impostor pair",
        )
        for group in groups
    ]
    page.table(rows, ("group", "genuine", "FNMR", "impostor", "FMR"))


def _transfers(page: Page, scored: Mapping[str, ScoredPairs]) -> None:
    page.heading("Thresholds carried to another set")
    page.text("A threshold for an FMR on one set, and the FMR and FNMR it has on another.")
    rows = [
        (chosen, rate_name(p.wanted), f"{p.threshold:.4f}", other, f"{p.fmr:.3g}", f"{p.fnmr:.4f}")
        for chosen in scored
        for other in scored
        if other != chosen
        for p in transfer(scored[chosen], scored[other], _TRANSFERRED)
    ]
    page.table(rows, ("chosen on", "for FMR", "threshold", "applied to", "FMR", "FNMR"))


def _hardest(page: Page, hard: Mapping[str, Sequence[HardPair]], faces: ImageDataset) -> None:
    for kind, pairs in hard.items():
        page.text(f"Hardest {kind} pairs")
        for pair in pairs:
            sides = [faces.pixels(index) for index in (pair.first, pair.second)]
            page.picture(np.concatenate(sides, axis=1), f"{kind}, cosine {pair.score:.3f}")
