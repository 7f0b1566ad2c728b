"""A page about several runs: which settings are better, and which differences are real."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from marginface.metrics.seed_comparison import Difference
from marginface.pages.groups import HEADINGS, Group, Groups, group_runs
from marginface.pages.run_data import MEAN_ACCURACY
from marginface.reporting.axes import fitted
from marginface.reporting.html_page import Card, Link, Page
from marginface.reporting.svg_charts import (
    SERIES,
    Chart,
    Series,
    Whisker,
    line_chart,
    thinned,
    whisker_chart,
)
from marginface.runs.comparison import (
    ComparedRun,
    compare_runs,
    names_of,
    read_compared,
    run_folders,
    short,
)
from marginface.runs.folder import RunFolder
from marginface.runs.metrics import Column, known, read_metrics
from marginface.runs.status import read_status
from marginface.utils.tables import interval_cell, metric_cell, print_line, print_table

SWEEP_REPORT = "report.html"
IMPORTANCE = "importance.json"  # of settings, written by a sweeper that knows it
_WHISKERS, _MOST_ROWS = 40, 1000


def finish_sweep(sweep: Path, *, shown: bool = True) -> None:
    """Compare the runs of a sweep so far: comparison.csv, report.html, tables in the terminal.

    Args:
        sweep: its folder.
        shown: whether the tables are printed.
    """
    folders = run_folders(sweep)
    if folders == [sweep]:
        return  # no job came so far as to have a folder
    table = compare_runs(folders, sweep / "comparison.csv")
    runs = read_compared(folders)
    groups = group_runs(runs)
    _write_page(runs, groups, sweep / SWEEP_REPORT, sweep.name)
    if shown:
        print_table(table)
        show_groups(groups)
        print(f"sweep folder {sweep}")
        print(f"page {sweep / SWEEP_REPORT}")


def show_groups(groups: Groups) -> None:
    """Groups as a table in the terminal, and what may be said of them."""
    if groups.groups:
        print_table(groups.table())
        print_line(groups.verdict())


def write_comparison_page(folders: Sequence[Path], path: Path, title: str) -> Path:
    """Write a page about runs; returns its path.

    Args:
        folders: of the runs.
        path: of the page.
        title: of what they are together.

    Raises:
        MissingInputError: a folder that is not one of a run.
    """
    runs = read_compared(folders)
    _write_page(runs, group_runs(runs), path, title)
    return path


def _write_page(runs: Sequence[ComparedRun], groups: Groups, path: Path, title: str) -> None:
    page = Page(f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}: {title}")
    page.cards(_cards(runs, groups))
    states = [read_status(RunFolder(run.folder)).state for run in runs]
    for state in ("running", "stopped"):
        if state in states:
            page.warning(f"{states.count(state)} of {len(runs)} runs: {state}, see below.")
    if not groups.groups:
        page.text("No run has a verification result yet: there is nothing to compare.")
    else:
        page.text(groups.verdict(), "good" if any(d.differs for d in groups.differences) else "")
        _ranking(page, groups)
        page.heading("Learning curves")
        page.charts(_learning_curves(groups.groups))
        _main_effects(page, groups)
    _importance(page, path.parent / IMPORTANCE)
    _runs(page, runs, groups, path.parent)
    page.write(path)


def _cards(runs: Sequence[ComparedRun], groups: Groups) -> list[Card]:
    seeds = sorted({run.seed for group in groups.groups for run in group.runs})
    shown = ", ".join(map(str, seeds[:5])) + (", ..." if len(seeds) > 5 else "")
    cards = [
        Card("runs", str(len(runs)), _left_out(groups)),
        Card("groups", str(len(groups.groups)), "by everything but the seed"),
        Card("seeds", str(len(seeds)), shown),
    ]
    if groups.groups:
        best = groups.groups[0]
        value = metric_cell("accuracy", best.accuracy.value)
        cards.append(Card("highest mean accuracy", f"{value} %", best.name))
    return cards


def _left_out(groups: Groups) -> str:
    pruned = sum(run.pruned for run in groups.missing)
    words = [f"{len(groups.missing) - pruned} without a result"]
    words += [f"{pruned} ended early by the sweeper"] if pruned else []
    words += [f"{len(groups.repeated)} repeat a seed, not counted"] if groups.repeated else []
    return ", ".join(words)


def _ranking(page: Page, groups: Groups) -> None:
    page.heading("Groups")
    page.text(
        "Accuracy is the mean over the verification sets after the last validation, in percent; "
        "intervals are Student's t over seeds. A rank is 1 plus the number of groups that are "
        "significantly better: two are called different only when the interval of their "
        "difference over seeds excludes 0, after Holm's correction for the number of comparisons."
    )
    page.table(groups.rows(), HEADINGS)
    shown = groups.groups[:_WHISKERS]
    rows = [_whisker(group) for group in shown]
    if len(rows) > 1:
        ends = np.array([[row.low, row.high] for row in rows])
        title = "accuracy of the groups"
        if len(groups.groups) > _WHISKERS:
            title += f" (the {_WHISKERS} highest)"
        page.charts([whisker_chart(title, rows, fitted("%", ends))])
    tested = [d for d in groups.differences if not np.isnan(d.p_value)]
    if tested:
        rows_of = [_difference_row(d) for d in groups.differences[:_MOST_ROWS]]
        headings = (
            "first", "second", "first - second (points)", "interval", "p", "p after Holm", "seeds",
            "verdict",
        )  # fmt: skip
        title = "Every two groups"
        if len(groups.differences) > _MOST_ROWS:
            title += f" (the first {_MOST_ROWS} of {len(groups.differences):,})"
        page.folded(title, rows_of, headings, is_open=len(rows_of) <= 10)


def _whisker(group: Group) -> Whisker:
    value, low, high = (100 * v for v in group.accuracy)
    if np.isnan(low):
        low = high = value
    return Whisker(group.name, value, low, high)


def _difference_row(d: Difference) -> tuple[str, ...]:
    if np.isnan(d.p_value):
        value = metric_cell("difference", d.value)
        return d.first, d.second, value, "-", "-", "-", str(d.seeds), "not known"
    return (
        d.first,
        d.second,
        metric_cell("difference", d.value),
        interval_cell("difference", d.low, d.high),
        f"{d.p_value:.3g}",
        f"{d.adjusted:.3g}",
        f"{d.seeds} {'paired' if d.paired else 'not paired'}",
        "different" if d.differs else "not told apart",
    )


def _learning_curves(groups: Sequence[Group]) -> list[Chart]:
    """Mean over the seeds with the lowest and highest of them, of the best groups."""
    charts = []
    for name, title, factor, unit in (
        (MEAN_ACCURACY, "verification accuracy", 100, "%"),
        ("train/loss", "training loss", 1, "loss"),
    ):
        series = [_curve(group, name, factor) for group in groups[:SERIES]]
        series = [curve for curve in series if len(curve.x)]
        if not series:
            continue
        several = any(len(group.runs) > 1 for group in groups[:SERIES])
        words = f"{title}: mean, lowest and highest seed" if several else title
        if len(groups) > SERIES:
            words += f" (the {SERIES} groups of highest accuracy)"
        edges = [edge for curve in series for edge in (curve.low, curve.high) if edge is not None]
        x = fitted("optimizer step", *(curve.x for curve in series), low=0.0)
        charts.append(line_chart(words, series, x, fitted(unit, *edges)))
    return charts


def _curve(group: Group, name: str, factor: float) -> Series:
    """Over the steps that all seeds have."""
    curves: list[dict[float, float]] = []
    for run in group.runs:
        log = RunFolder(run.folder).metrics
        if log.is_file():
            steps, values = known(read_metrics(log, only=[name]), name)
            curves.append(dict(zip(steps.tolist(), values.tolist(), strict=True)))
    common = sorted(set.intersection(*map(set, curves))) if curves else []
    if not common:
        empty: Column = np.empty(0)
        return Series(group.name, empty, empty, empty, empty)
    values = factor * np.array([[curve[step] for step in common] for curve in curves])
    kept = thinned(values.mean(0))
    at = np.array(common)[kept] + 1
    columns = values[:, kept]
    return Series(group.name, at, columns.mean(0), columns.min(0), columns.max(0))


def _main_effects(page: Page, groups: Groups) -> None:
    if not groups.effects:
        return
    page.heading("Main effects")
    page.text(
        "How far each value of a setting moves the accuracy, in points of percent: the mean of the "
        "runs with it minus the mean of all runs, over the seeds."
    )
    rows = []
    for effect in groups.effects:
        value, low, high = (100 * v for v in effect.estimate)
        low, high = (value, value) if np.isnan(low) else (low, high)
        name = effect.setting.removesuffix(".name").rsplit(".")[-1]
        rows.append(Whisker(f"{name}={effect.level}", value, low, high))
    ends = np.array([[0.0, row.low, row.high] for row in rows])
    page.charts([whisker_chart("main effects", rows, fitted("points of percent", ends))])


def _importance(page: Page, path: Path) -> None:
    if not path.is_file():
        return
    shares: dict[str, float] = json.loads(path.read_text())
    page.heading("Importance of the settings")
    page.text(
        "Share of the differences between good and other trials that each setting explains, as "
        "the sweeper estimates it (PED-ANOVA)."
    )
    rows = [
        Whisker(name, share, 0.0, share)
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
    x = fitted("share", np.array([row.high for row in rows]), low=0.0)
    page.charts([whisker_chart("importance", rows, x)])


def _runs(page: Page, runs: Sequence[ComparedRun], groups: Groups, beside: Path) -> None:
    """Every run with a link to its page."""
    page.heading("Runs")
    sets = dict.fromkeys(
        key for run in runs for key in run.result
        if key.startswith("val/") and key.endswith("/accuracy")
    )  # fmt: skip
    rows = []
    for name, run in zip(names_of([run.folder for run in runs]), runs, strict=True):
        folder = RunFolder(run.folder)
        report = os.path.relpath(folder.report, beside)
        rows.append(
            (
                Link(name, quote(report)) if folder.report.is_file() else name,
                "ended early" if run.pruned else read_status(folder).state,
                *(short(run.settings.get(key, "-")) for key in groups.settings),
                str(run.seed),
                *(metric_cell("accuracy", run.result.get(key)) for key in sets),
            )
        )
    headings = ("run", "state", *groups.settings, "seed", *(key.split("/")[1] for key in sets))
    page.folded("All runs (accuracy in percent)", rows, headings)
