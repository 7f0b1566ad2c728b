"""The page of an evaluation: the numbers that are read first, charts, then every table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from marginface.data.image_dataset import ImageDataset
from marginface.evaluation.benchmarks.base import BenchmarkResult, HardPair
from marginface.metrics.bootstrap import Estimate
from marginface.metrics.groups import GroupRates
from marginface.metrics.operating_points import operating_points, transfer
from marginface.metrics.quality import DISCARDED
from marginface.metrics.roc import det_curve
from marginface.metrics.scores import ScoredPairs
from marginface.metrics.thresholds import Threshold
from marginface.metrics.verification import rate_name
from marginface.reporting.axes import Axis
from marginface.reporting.html_page import Card, Page
from marginface.reporting.svg_charts import SERIES, Chart, Series, histogram_chart, line_chart
from marginface.utils.tables import interval_cell, metric_cell

METRIC_HEADINGS = ("metric (percent)", "value", "95 % interval")
_TRANSFERRED = (1e-2, 1e-3)
_RECOMMENDED = 1e-3  # false match rate whose threshold is shown first, where it is supported
_DET_END = 0.6
_SINGLE_RATES = {  # of a benchmark without accuracy, in the order in which they are shown first
    "rank1": "rank-1 identification",
    "auc": "area under the ROC",
}


def evaluation_page(
    facts: Mapping[str, Any],
    results: Sequence[BenchmarkResult],
    fmrs: Sequence[float],
    faces: Mapping[str, ImageDataset],
) -> Page:
    """The page, to be written.

    Args:
        facts: of the network and of how images were embedded.
        results: of the benchmarks.
        fmrs: false match rates to give thresholds for.
        faces: images by benchmark, to show the hardest pairs of; biometric data.
    """
    page = Page(f"Evaluation of {facts['network']}")
    for benchmark in results:
        _add_benchmark(page, benchmark, fmrs, faces.get(benchmark.name))
    scored = {o.name: o.pairs for o in results if o.pairs is not None}
    if len(scored) > 1:
        _transfers(page, scored)
    page.heading("Network and machine")
    page.table([(key.replace("_", " "), value) for key, value in facts.items()])
    return page


def shown(name: str, estimate: Estimate) -> tuple[str, str]:
    """An estimate as printed: the value, its interval."""
    return metric_cell(name, estimate.value), interval_cell(name, estimate.low, estimate.high)


def score_histogram(pairs: ScoredPairs) -> Chart:
    """Genuine and impostor scores."""
    return histogram_chart(
        "scores of genuine and impostor pairs",
        {"genuine": pairs.genuine.cpu().numpy(), "impostor": pairs.impostor.cpu().numpy()},
        "score",
    )


def rate_charts(scored: Mapping[str, ScoredPairs]) -> list[Chart]:
    """ROC over a logarithmic false match rate, DET in normal deviates, of up to SERIES sets."""
    curves = {name: det_curve(pairs) for name, pairs in list(scored.items())[:SERIES]}
    lowest = min(1 / len(pairs.impostor) for pairs in scored.values())
    x = Axis("false match rate", 10 ** np.floor(np.log10(min(lowest, 0.1))), 1.0, "log")
    roc = [
        Series(name, far.numpy(), 100 * (1 - frr.numpy())) for name, (far, frr) in curves.items()
    ]
    misses = [float(frr[frr > 0].min()) for _, frr in curves.values() if (frr > 0).any()]
    det = []
    for name, (far, frr) in curves.items():
        # A deviate of 0 is infinite; what is above the ends is not drawn at the edge.
        inside = ((far > 0) & (frr > 0) & (far <= _DET_END) & (frr <= _DET_END)).numpy()
        det.append(Series(name, *(np.where(inside, side.numpy(), np.nan) for side in (far, frr))))
    across = Axis("false match rate", min(lowest, 0.04), _DET_END, "deviate")
    up = Axis("false non-match rate", min([0.04, *misses]), _DET_END, "deviate")
    return [
        line_chart("ROC", roc, x, Axis("true match rate (%)", 0.0, 100.0)),
        line_chart("DET (detection error trade-off)", det, across, up),
    ]


def _add_benchmark(
    page: Page, benchmark: BenchmarkResult, fmrs: Sequence[float], faces: ImageDataset | None
) -> None:
    page.heading(benchmark.name)
    page.cards(_cards(benchmark))
    for caution in benchmark.cautions:
        page.warning(f"Warning: {caution}")
    page.charts(_charts(benchmark))
    rows = [(name, *shown(name, estimate)) for name, estimate in benchmark.metrics.items()]
    page.folded("All metrics", rows, METRIC_HEADINGS, is_open=False)
    if benchmark.thresholds:
        _recommended(page, benchmark.thresholds, fmrs)
    if benchmark.pairs is not None:
        _operating_points(page, benchmark.pairs, fmrs)
    rates = fnir_rows(benchmark)
    if rates:
        title = "FNIR(N, R, T): misses among N enrolled, at rank R and threshold T"
        page.folded(title, rates, ("", "FNIR (%)", "95 % interval"), is_open=False)
    if benchmark.groups:
        _groups(page, benchmark.groups, benchmark.group_threshold)
    for title, headings, table_rows in benchmark.tables:
        page.folded(title, table_rows, headings, is_open=False)
    with page.folding("Protocol and counts"):
        for line in benchmark.protocol:
            page.text(line, "protocol")
        page.table(list(benchmark.counts.items()))
    if faces is not None:
        _hardest(page, benchmark.hard, faces)


def _cards(benchmark: BenchmarkResult) -> list[Card]:
    """Accuracy with its interval, TAR at the rates asked for, the recommended threshold."""
    metrics = benchmark.metrics
    cards = []
    names = {"accuracy": "accuracy"} if "accuracy" in metrics else dict(_SINGLE_RATES)
    names |= {name: f"TAR at FAR {name[4:]}" for name in metrics if name.startswith("tar@")}
    names |= {name: f"TPIR at FPIR {name[5:]}" for name in metrics if name.startswith("tpir@")}
    names |= {name: "accuracy of the worst group" for name in metrics if name == "accuracy_worst"}
    for name, label in names.items():
        if name in metrics:
            value, interval = shown(name, metrics[name])
            cards.append(Card(label, f"{value} %", f"{interval} %"))
    supported = sorted((t for t in benchmark.thresholds if t.supported), key=lambda t: t.fmr)
    chosen = next((t for t in supported if t.fmr >= _RECOMMENDED * (1 - 1e-9)), None)
    if chosen is not None:
        label = f"threshold for FMR {rate_name(chosen.fmr)}"
        cards.append(Card(label, f"{chosen.cosine:.4f}", f"{chosen.low:.4f} to {chosen.high:.4f}"))
    return cards


def _charts(benchmark: BenchmarkResult) -> list[Chart]:
    charts: list[Chart] = []
    if benchmark.pairs is not None:
        charts += [score_histogram(benchmark.pairs), *rate_charts({"all pairs": benchmark.pairs})]
    if benchmark.reject is not None:
        shares, fnmr = benchmark.reject
        area = benchmark.discard_area
        words = ""
        if area is not None:
            value, interval = shown("fnmr", area)
            words = f"; mean to {DISCARDED:.0%} left out: {value} % ({interval})"
        charts.append(
            line_chart(
                "FNMR (threshold at FMR 1e-2) without the pairs of lowest quality",
                [Series(f"quality = norm of the embedding{words}", 100 * shares, 100 * fnmr)],
                Axis("genuine pairs left out (%)", 0.0, 100.0),
                Axis("FNMR (%)", 0.0, 100 * max(float(fnmr.max()), 1e-3)),
            )
        )
    return charts


def fnir_rows(benchmark: BenchmarkResult) -> list[tuple[str, str, str]]:
    """Identification misses by their NIST names (NIST IR 8271): FNIR(N, R, T).

    With a threshold T at a false positive identification rate it is 1 - TPIR; without one (T = 0)
    it is 1 - the hit rate at rank R.
    """
    gallery = [count for name, count in benchmark.counts.items() if name.startswith("gallery")]
    others = benchmark.counts.get("distractors", 0)
    size = f"{gallery[0] + others:,}" if len(gallery) == 1 else "N"
    rows = []
    for name, rate in benchmark.metrics.items():
        missed = Estimate(1 - rate.value, 1 - rate.high, 1 - rate.low)
        if name.startswith("tpir@"):
            label = f"FNIR({size}, 1, T at FPIR {name[5:]})"
        elif name.startswith("rank") and name[4:].isdigit():
            label = f"FNIR({size}, {name[4:]}, 0)"
        else:
            continue
        rows.append((label, *shown("fnir", missed)))
    return rows


def _recommended(page: Page, thresholds: Sequence[Threshold], fmrs: Sequence[float]) -> None:
    wanted = {rate_name(fmr) for fmr in fmrs}
    rows = [
        (
            rate_name(t.fmr),
            f"{t.cosine:.4f}",
            f"{t.low:.4f} to {t.high:.4f}",
            "-"
            if t.fmr_low is None or t.fmr_high is None
            else f"{t.fmr_low:.2g} to {t.fmr_high:.2g}",
            "yes" if t.supported else "NO, too few impostor pairs",
        )
        for t in thresholds
        if rate_name(t.fmr) in wanted
    ]
    pairs = f"{thresholds[0].impostors:,} impostor pairs of {thresholds[0].set}"
    headings = (
        "FMR wanted", "threshold (cosine)", "95 % interval", "FMR there, 95 %", "supported",
    )  # fmt: skip
    page.folded(f"Recommended thresholds, from {pairs}", rows, headings, is_open=True)


def _operating_points(page: Page, pairs: ScoredPairs, fmrs: Sequence[float]) -> None:
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
    with page.folding("Operating points on these pairs"):
        page.text(
            "Accept scores >= the threshold. A rate is supported when 30 false matches are "
            "expected (rule of 30); others are guesses from too few impostor pairs."
        )
        page.table(rows, headings)


def _groups(page: Page, groups: Sequence[GroupRates], threshold: float | None) -> None:
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
    title = f"Groups at the common threshold {threshold:.4f} (FMR 1e-2 over all pairs), percent"
    page.folded(title, rows, ("group", "genuine", "FNMR", "impostor", "FMR"), is_open=True)


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
