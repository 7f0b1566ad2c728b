"""Axes and charts: where things are drawn, and that nothing is lost by thinning."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import norm

from marginface.reporting.axes import Axis, fitted
from marginface.reporting.svg_charts import (
    HEIGHT,
    WIDTH,
    Chart,
    Level,
    Series,
    Whisker,
    bar_chart,
    histogram_chart,
    line_chart,
    share_chart,
    svg_file,
    thinned,
    whisker_chart,
)


def test_normal_deviates() -> None:
    axis = Axis("FNMR", 0.001, 0.5, "deviate")
    points = np.array([0.001, 0.01, 0.2, 0.5])
    low, high = norm.ppf([0.001, 0.5])
    assert axis.place(points) == pytest.approx((norm.ppf(points) - low) / (high - low))
    assert [text for _, text in axis.ticks()] == ["0.1 %", "1 %", "5 %", "20 %", "50 %"]


def test_powers_of_ten_are_few() -> None:
    assert [text for _, text in Axis("", 1e-3, 1, "log").ticks()] == ["1e-3", "1e-2", "1e-1", "1"]
    assert len(Axis("", 1e-12, 1, "log").ticks()) <= 7


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (88.3, 91.2, ["89", "90", "91"]),
        (0, 250000, ["0", "50k", "100k", "150k", "200k", "250k"]),
        (-0.02, 0.021, ["-0.02", "-0.01", "0", "0.01", "0.02"]),
    ],
)
def test_round_numbers(low: float, high: float, texts: list[str]) -> None:
    found = [text for _, text in Axis("", low, high).ticks()]
    assert set(texts) <= set(found) or found == texts
    assert 3 <= len(found) <= 8


@pytest.mark.parametrize("values", [[], [np.nan], [3.0], [0.0, 0.0], [1e-30, 2e-30], [-1.0, 1e9]])
def test_an_axis_of_any_values(values: list[float]) -> None:
    axis = fitted("x", np.array(values))
    assert axis.low < axis.high
    placed = axis.place(np.array([v for v in values if np.isfinite(v)]))
    assert ((placed >= 0) & (placed <= 1)).all()
    assert axis.ticks()


def test_thinning_keeps_extremes_and_ends() -> None:
    y = np.random.default_rng(0).normal(size=100_000)
    y[71_234], y[5_678] = 50.0, -60.0
    kept = thinned(y)
    assert len(kept) <= 400
    assert {0, 71_234, 5_678, 99_999} <= set(kept.tolist())
    assert (np.diff(kept) > 0).all()
    assert thinned(y[:300]).tolist() == list(range(300))


def drawn(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(f'<svg xmlns="http://x">{chart.marks}</svg>')


def test_gaps_interrupt_a_curve() -> None:
    y = np.array([1.0, 2.0, np.nan, 3.0, 4.0])
    curve = Series("a", np.arange(5.0), y, y - 1, y + 1)
    chart = line_chart("t", [curve], Axis("", 0, 4), Axis("", 0, 5))
    assert chart.marks.count("<polyline") == 2
    assert chart.marks.count("<circle") == 4
    assert chart.marks.count("<polygon") == 1
    assert "nan" not in chart.marks


def test_everything_stays_inside() -> None:
    values = np.random.default_rng(1).normal(size=500)
    x = Axis("a long label <&>", 0.0, 499.0)
    charts = [
        line_chart("curve", [Series("s", np.arange(500.0), values)], x, Axis("y", -1, 1)),
        histogram_chart("h", {"one": values, "other": values + 1}, "score"),
        share_chart(
            "s", np.linspace(0, 1, 4), {"a": np.array([0.2, 0.3, 0.5])}, "x",
            [Level(0.5, "here", upright=True), Level(9.0, "outside", upright=True)],
        ),
        whisker_chart("w", [Whisker("a name that is far too long for it", 1, 0, 2)], x),
        bar_chart("b", [1, 20, 0], ["1", "2", "3+"]),
    ]  # fmt: skip
    for chart in charts:
        for element in drawn(chart).iter():
            for key in ("x", "cx", "x1", "x2"):
                assert 0 <= float(element.get(key, 1)) <= WIDTH, (chart.title, element.attrib)
            for key in ("y", "cy", "y1", "y2"):
                assert 0 <= float(element.get(key, 1)) <= chart.height, (chart.title, key)
            for pair in element.get("points", "").split():
                left, down = map(float, pair.split(","))
                assert 0 <= left <= WIDTH
                assert 0 <= down <= HEIGHT
    assert "outside" not in charts[2].marks


def test_the_last_number_of_an_axis_is_not_cut_off() -> None:
    chart = histogram_chart("h", {"a": np.linspace(-1, 1, 50)}, "score")
    for element in drawn(chart).iter():
        text = element.text or ""
        if re.fullmatch(r"-?[\d.]+", text):
            width, left = 6.2 * len(text), float(element.get("x", 0))
            right = {"end": left, "middle": left + width / 2}.get(
                element.get("text-anchor", ""), left + width
            )
            assert right <= WIDTH


def test_a_file_of_several_charts() -> None:
    y = Axis("y", 0, 1)
    one = line_chart("one", [Series("a & b", np.arange(3.0), np.zeros(3))], Axis("x", 0, 2), y)
    root = ElementTree.fromstring(svg_file([one, one, one], columns=2))
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 3
    assert "a & b" in "".join(root.itertext())
