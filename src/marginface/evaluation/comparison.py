"""Comparison of evaluations: metrics next to each other, paired tests on the same pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from marginface.evaluation.benchmarks.base import PairDecisions
from marginface.evaluation.page import rate_charts, shown
from marginface.evaluation.report import FACTS, RESULT, SCORES
from marginface.metrics.bootstrap import Estimate
from marginface.metrics.paired_comparison import Comparison, compare_decisions
from marginface.metrics.scores import sort_scores
from marginface.reporting.html_page import Page
from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.files import read_json
from marginface.utils.renamed import new_column, new_spelling
from marginface.utils.tables import make_table, print_line, print_table

_DIFFERING = ("checkpoint", "network", "color", "flip", "precision")


class Evaluated(NamedTuple):
    """An evaluation as it is on disk."""

    name: str
    facts: dict[str, Any]
    protocols: dict[str, list[str]]  # by benchmark
    pairs_sha256: dict[str, str]  # likewise
    metrics: dict[str, Estimate]  # <benchmark>/<metric>
    decisions: dict[str, PairDecisions]  # by benchmark


class Paired(NamedTuple):
    """An evaluation against the best one on the same pairs."""

    benchmark: str
    best: str
    other: str
    comparison: Comparison

    def row(self) -> tuple[Any, ...]:
        """For a table; the difference in points of percent."""
        difference = Estimate(*self.comparison.difference)
        value, interval = shown("difference", difference)
        verdict = {"first": "worse", "second": "better", "equal": "equal"}
        return (
            self.benchmark, self.best, self.other, value, interval,
            f"{self.comparison.only_first} : {self.comparison.only_second}",
            f"{self.comparison.p_value:.2g}", verdict[self.comparison.verdict],
        )  # fmt: skip


PAIRED_HEADINGS = (
    "pairs", "best", "other", "best - other (points)", "95 % interval",
    "right only best : only other", "McNemar p", "the other is",
)  # fmt: skip


def is_evaluation(folder: Path) -> bool:
    """Whether a folder was written by an evaluation."""
    return (folder / FACTS).is_file()


def read_evaluation(folder: Path) -> Evaluated:
    """What an evaluation left in its folder.

    Raises:
        MissingInputError: the folder is not one of an evaluation.
    """
    if not is_evaluation(folder):
        raise MissingInputError(f"{folder} is not an evaluation: it has no {FACTS}")
    flat: dict[str, float] = read_json(folder / RESULT)
    if not flat:
        raise MissingInputError(f"{folder} has no {RESULT}: that evaluation did not end")
    metrics = {
        key: Estimate(value, flat[f"{key}/low"], flat[f"{key}/high"])
        for key, value in flat.items()
        if f"{key}/low" in flat
    }
    columns: dict[str, dict[str, Any]] = {}
    with np.load(folder / SCORES) as arrays:
        for key in arrays.files:
            benchmark, name = key.rsplit("/", 1)
            columns.setdefault(benchmark, {})[new_column(name)] = arrays[key]
    facts = read_json(folder / FACTS)
    protocols = {
        entry["name"]: [new_spelling(line) for line in entry["protocol"]]
        for entry in facts["benchmarks"]
    }
    keys = {entry["name"]: entry["pairs_sha256"] for entry in facts["benchmarks"]}
    decisions = {benchmark: PairDecisions(**found) for benchmark, found in columns.items()}
    return Evaluated(str(folder), facts["facts"], protocols, keys, metrics, decisions)


def compare_evaluations(folders: Sequence[Path], page_path: Path) -> None:
    """Print two or more evaluations next to each other and write the same as a page.

    Args:
        folders: of the evaluations.
        page_path: of the page.

    Raises:
        InputError: fewer than two, or a folder that is not one of an evaluation.
    """
    if len(folders) < 2:
        raise InputError("a comparison needs two or more evaluations")
    if page_path.exists():
        raise InputError(f"{page_path} exists; choose another name, nothing is overwritten")
    evaluations = _renamed([read_evaluation(folder) for folder in folders])
    pairs = [paired for key in _benchmarks(evaluations) for paired in compare_on(evaluations, key)]
    metrics, notes = _metric_rows(evaluations), _differences(evaluations)
    headings = ("metric (percent)", *(e.name for e in evaluations))
    print_table(make_table(headings, metrics))
    for note in notes:
        print_line(note)
    if pairs:
        print_table(make_table(PAIRED_HEADINGS, [paired.row() for paired in pairs]))
    page = Page(f"{len(evaluations)} evaluations side by side")
    facts = [(e.name, *(str(e.facts.get(key)) for key in _DIFFERING)) for e in evaluations]
    page.table(facts, ("evaluation", *_DIFFERING))
    page.table(metrics, headings)
    for note in notes:
        page.text(note, "bad")
    _add_pairs(page, pairs)
    _add_charts(page, evaluations)
    page.write(page_path)
    print_line(f"page {page_path}")


def _metric_rows(evaluations: Sequence[Evaluated]) -> list[tuple[str, ...]]:
    """Every metric of any of them, with its interval in the same cell."""
    rows = []
    for key in dict.fromkeys(key for e in evaluations for key in e.metrics):
        found = [e.metrics.get(key) for e in evaluations]
        rows.append((key, *("-" if v is None else _in_one_cell(key, v) for v in found)))
    return rows


def _add_pairs(page: Page, pairs: Sequence[Paired]) -> None:
    if not pairs:
        return
    page.heading("Paired comparisons")
    page.text(
        "Against the best on exactly the same pairs: share of right decisions (of templates: "
        "of genuine pairs, each network at its threshold for FMR 1e-3). The interval is a "
        "bootstrap over people; 'equal' where it contains 0, even if the numbers above differ."
    )
    page.table([paired.row() for paired in pairs], PAIRED_HEADINGS)


def _add_charts(page: Page, evaluations: Sequence[Evaluated]) -> None:
    """ROC and DET of each benchmark, all evaluations in one chart."""
    for benchmark in _benchmarks(evaluations):
        scored = {
            e.name: sort_scores(torch.from_numpy(d.scores), torch.from_numpy(d.same))
            for e in evaluations
            if (d := e.decisions.get(benchmark)) is not None and not d.same.all()
        }
        if scored:
            page.heading(benchmark)
            page.charts(rate_charts(scored))


def compare_on(evaluations: Sequence[Evaluated], benchmark: str) -> list[Paired]:
    """Every evaluation against the one with the most right decisions on the same pairs."""
    groups: dict[str, list[Evaluated]] = {}
    for evaluation in evaluations:
        if benchmark in evaluation.decisions:
            groups.setdefault(evaluation.pairs_sha256[benchmark], []).append(evaluation)
    paired = []
    for group in groups.values():
        found = [(e.name, e.decisions[benchmark]) for e in group]
        # Of equal results the first given; the comparison calls them equal.
        name, best = max(found, key=lambda entry: entry[1].correct[entry[1].compared].mean())
        kept = best.compared
        for other, decisions in found:
            if other != name:
                comparison = compare_decisions(
                    best.correct[kept],
                    decisions.correct[kept],
                    best.identity1[kept],
                    best.identity2[kept],
                )
                paired.append(Paired(benchmark, name, other, comparison))
    return paired


def _differences(evaluations: Sequence[Evaluated]) -> list[str]:
    """What keeps numbers from being compared: other protocols, other pairs."""
    notes = []
    for benchmark in dict.fromkeys(name for e in evaluations for name in e.protocols):
        having = [e for e in evaluations if benchmark in e.protocols]
        lines = dict.fromkeys(line for e in having for line in e.protocols[benchmark])
        for line in lines:
            those = [e.name for e in having if line in e.protocols[benchmark]]
            if len(those) < len(having):
                notes.append(f"{benchmark}: only in {', '.join(those)}: {line}")
        if len({e.pairs_sha256[benchmark] for e in having}) > 1:
            notes.append(
                f"{benchmark}: not the same pairs everywhere; only equal ones are compared"
            )
    return notes


def _benchmarks(evaluations: Sequence[Evaluated]) -> list[str]:
    return list(dict.fromkeys(key for e in evaluations for key in e.decisions))


def _renamed(evaluations: list[Evaluated]) -> list[Evaluated]:
    """By the last part of their folders, unless two share it."""
    short = [Path(e.name).name for e in evaluations]
    if len(set(short)) < len(short):
        short = [f"{n} {name}" for n, name in enumerate(short, start=1)]
    return [e._replace(name=name) for e, name in zip(evaluations, short, strict=True)]


def _in_one_cell(key: str, estimate: Estimate) -> str:
    value, interval = shown(key.rsplit("/", 1)[-1], estimate)
    return f"{value} ({interval})"
