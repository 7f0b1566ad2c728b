"""Charts of a run: its log over the steps, and the curves of its last validation."""

import math
from collections.abc import Sequence

import numpy as np

from marginface.pages.run_data import RunData
from marginface.reporting.axes import Axis, fitted
from marginface.reporting.svg_charts import (
    SERIES,
    Chart,
    Level,
    Series,
    line_chart,
    share_chart,
)
from marginface.runs.metrics import Column, known

_STEPS = "optimizer step"
_ANGLES = ("train/target_angle_p5", "train/target_angle_p50", "train/target_angle_p95")


def verification_charts(run: RunData) -> list[Chart]:
    """Accuracy, TAR and threshold of every verification set over the steps."""
    metrics = ["accuracy", *_rates(run), "threshold"]
    charts = []
    for metric in metrics:
        curves = {name: known(run.columns, f"val/{name}/{metric}") for name in run.sets}
        factor, unit = (1, "cosine") if metric == "threshold" else (100, "%")
        series = []
        for name, (steps, values) in curves.items():
            before = run.result.get(f"untrained/{name}/{metric}")
            if before is not None:
                steps, values = np.append(-1.0, steps), np.append(before, values)
            series.append(Series(name, steps + 1, factor * values))
        title = f"TAR at FAR {metric[4:]}" if metric.startswith("tar@") else metric
        charts += _over_steps(f"verification: {title}", series, unit)
    return charts


def training_charts(run: RunData) -> list[Chart]:
    """Loss, accuracy, angles beside the head's curve, norms, rate, state and speed."""
    clip = run.config.get("trainer", {}).get("gradient_clip_val")
    at_clip = [Level(float(clip), "clipped above")] if clip else []
    charts = [
        *_single(run, "train/loss", "loss", "loss with margin"),
        *_single(run, "train/accuracy", "training accuracy without margin", "%", 100),
        *_angle_band(run),
        *_head_curve(run),
        *_single(run, "train/feature_norm", "norm of the embeddings (mean)", "norm"),
        *_single(
            run, "train/gradient_norm", "gradient norm of the backbone, before clipping", "norm",
            levels=at_clip,
        ),
        *_single(run, "train/lr", "learning rate", "rate"),
        *_single(run, "train/grad_scale", "scale of the loss (16-bit)", "factor"),
    ]  # fmt: skip
    for name in run.columns:
        if name.startswith("head/"):
            charts += _single(run, name, f"state of the head: {name[5:]}", name[5:])
    speed, wait = "speed/images_per_second", "speed/data_wait_share"
    charts += _single(run, speed, "speed", "images per second", low=0.0)
    charts += _single(run, wait, "time spent waiting for data", "%", 100, low=0.0)
    charts += _single(run, "data/skipped_images", "images skipped as damaged", "images")
    return charts


def last_validation_charts(run: RunData) -> list[Chart]:
    """ROC and score histograms of the last validation, two charts for each set."""
    charts = []
    for name, curves in run.curves.get("validation", {}).get("sets", {}).items():
        far, tar = np.array(curves["far"]), np.array(curves["tar"])
        lowest = 10 ** np.floor(np.log10(min(0.1, 1 / curves["impostor_pairs"])))
        x = Axis("false accept rate", float(lowest), 1.0, "log")
        y = Axis("true accept rate (%)", 0.0, 100.0)
        charts.append(line_chart(f"{name}: ROC", [Series(name, far, 100 * tar)], x, y))
        shares = {
            f"{kind} ({curves[f'{kind}_pairs']:,} pairs)": np.array(curves[kind])
            for kind in ("genuine", "impostor")
        }
        at = Level(curves["threshold"], f"threshold {curves['threshold']:.3f}", upright=True)
        charts.append(
            share_chart(f"{name}: scores", np.array(curves["edges"]), shares, "cosine", [at])
        )
    return charts


def _rates(run: RunData) -> list[str]:
    """TARs that the log has, but for the one at the highest rate."""
    found = {n.rsplit("/", 1)[1] for n in run.columns if n.startswith("val/") and "/tar@" in n}
    sets = run.curves.get("validation", {}).get("sets", {}).values()
    most = max((curves["impostor_pairs"] for curves in sets), default=math.inf)
    # With less than one false match expected the threshold is that of a single pair.
    told = [name for name in found if float(name[4:]) * most >= 1]
    return sorted(told, key=lambda name: float(name[4:]))[:2]


def _single(
    run: RunData,
    name: str,
    title: str,
    unit: str,
    factor: float = 1.0,
    levels: Sequence[Level] = (),
    low: float | None = None,
) -> list[Chart]:
    steps, values = known(run.columns, name)
    return _over_steps(title, [Series("", steps, factor * values)], unit, levels, low)


def _over_steps(
    title: str,
    series: Sequence[Series],
    unit: str,
    levels: Sequence[Level] = (),
    low: float | None = None,
) -> list[Chart]:
    """Charts of up to SERIES curves each; none without a value."""
    series = [curve for curve in series if len(curve.x)]
    charts = []
    for start in range(0, len(series), SERIES):
        part = series[start : start + SERIES]
        x = fitted(_STEPS, *(curve.x for curve in part), low=0.0)
        y = fitted(unit, *(curve.y for curve in part), np.array([v.value for v in levels]), low=low)
        chart = line_chart(title, part, x, y, levels)
        charts.append(chart if part[0].name else chart._replace(names=()))
    return charts


def _angle_band(run: RunData) -> list[Chart]:
    (steps, low), (_, middle), (_, high) = (known(run.columns, name) for name in _ANGLES)
    if not len(steps):
        return []
    series = [Series("median, and from 5 to 95 % of the images", steps, middle, low, high)]
    x, y = fitted(_STEPS, steps, low=0.0), fitted("degrees", low, high)
    return [line_chart("angle of an image to its own center", series, x, y)]


def _head_curve(run: RunData) -> list[Chart]:
    """f of the head, and where on it the images of the last logged step are."""
    curve = run.curves.get("head")
    if not curve:
        return []
    degrees, target = np.array(curve["degrees"], float), np.array(curve["target"], float)
    levels = []
    for name in _ANGLES:
        last: Column = known(run.columns, name)[1][-1:]
        levels += [Level(float(v), f"{name.rsplit('_p')[-1]} %", upright=True) for v in last]
    x = Axis("angle to the own center (degrees)", 0.0, 180.0)
    head = run.config.get("head", {}).get("name", "head")
    title = f"curve of {head}, and where the images are on it"
    chart = line_chart(title, [Series("f", degrees, target)], x, fitted("f", target), levels)
    return [chart._replace(names=())]
