"""Charts as SVG: they follow the page into dark mode and onto paper."""

import html
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marginface.reporting.axes import Axis

WIDTH, HEIGHT = 360, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 12, 40
_ROW_LEFT = 150  # of charts with a row of words beside each value
_MOST_POINTS = 400  # of a curve; more cannot be seen
_DOTTED = 40  # so few points are marked one by one
SERIES = 10  # colors there are, see STYLE

Floats = NDArray[np.floating]

STYLE = """
svg text { fill: currentColor; font: 11px system-ui, sans-serif }
.grid { stroke: var(--line); stroke-width: .6 } .bar { fill: var(--mark) }
.line { fill: none; stroke: var(--s); stroke-width: 1.8 } .dot { fill: var(--s) }
.area { fill: var(--s); stroke: var(--s); fill-opacity: .35; stroke-width: 1 }
.band { fill: var(--s); fill-opacity: .2 }
.level { stroke: currentColor; stroke-width: 1; stroke-dasharray: 4 3; opacity: .7 }
.s0 { --s: #2a6fdb } .s1 { --s: #d9730d } .s2 { --s: #2e9e5b } .s3 { --s: #a83fc1 }
.s4 { --s: #c2344d } .s5 { --s: #7a7a7a } .s6 { --s: #0f8f9c } .s7 { --s: #98801a }
.s8 { --s: #e0559f } .s9 { --s: #6d5bd0 }
"""


class Series(NamedTuple):
    """A named curve; `low` and `high` are the edges of a band around it."""

    name: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None


class Level(NamedTuple):
    """A dashed line across the chart, with a word at it; across x unless `upright`."""

    value: float
    text: str
    upright: bool = False


class Chart(NamedTuple):
    """A chart of WIDTH x HEIGHT.

    Attributes:
        title: what one sees, also for those who do not.
        marks: inside of the SVG.
        names: of the series, in the order of their colors.
        height: other than HEIGHT where rows need it.
    """

    title: str
    marks: str
    names: Sequence[str] = ()
    height: float = HEIGHT

    def svg(self, place: str = "") -> str:
        """The SVG element; `place` are further attributes."""
        return (
            f'<svg class="chart" role="img" aria-label="{html.escape(self.title)}" '
            f'viewBox="0 0 {WIDTH} {self.height:g}"{place}>{self.marks}</svg>'
        )

    def figure(self) -> str:
        """The chart with its title and key, as HTML."""
        key = "".join(
            f'<span class="name"><span class="key s{number}"></span>{html.escape(name)}</span> '
            for number, name in enumerate(self.names)
        )
        title = html.escape(self.title)
        return (
            f'<figure class="chart"><figcaption class="title">{title}</figcaption>'
            f"{self.svg()}<div>{key}</div></figure>"
        )


def line_chart(
    title: str, series: Sequence[Series], x: Axis, y: Axis, levels: Sequence[Level] = ()
) -> Chart:
    """Curves over two axes.

    Args:
        title: what one sees.
        series: at most SERIES of them; NaN interrupts a curve.
        x, y: the axes.
        levels: dashed lines across.
    """
    marks = []
    for number, curve in enumerate(series):
        if curve.low is not None and curve.high is not None:
            marks.append(_band(number, curve.x, curve.low, curve.high, x, y))
        for a, b in _pieces(np.asarray(curve.x, np.float64), np.asarray(curve.y, np.float64)):
            left, down = x.place(a), y.place(b)
            marks.append(f'<polyline class="line s{number}" points="{_points(left, down)}"/>')
            if len(curve.x) <= _DOTTED:
                marks += [
                    f'<circle class="dot s{number}" r="2.2" cx="{_left(u):.1f}" '
                    f'cy="{_down(v):.1f}"/>'
                    for u, v in zip(left.tolist(), down.tolist(), strict=True)
                ]
    marks += [_level(level, x, y, row) for row, level in enumerate(levels)]
    return Chart(title, _frame(x, y) + "".join(marks), [curve.name for curve in series])


def histogram_chart(title: str, values: Mapping[str, Floats], label: str) -> Chart:
    """Shares of several lists of values in common bins, one over the other.

    Args:
        title: what one sees.
        values: by name, none empty.
        label: of the horizontal axis.
    """
    edges = common_edges(list(values.values()))
    shares = {name: np.histogram(v, edges)[0] / len(v) for name, v in values.items()}
    return share_chart(title, edges, shares, label)


def common_edges(values: Sequence[Floats], bins: int = 60) -> Floats:
    """Edges of bins that hold all values."""
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    if high - low < 1e-5 * max(1.0, abs(low), abs(high)):  # numbers are kept with six digits
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, bins + 1)


def share_chart(
    title: str,
    edges: Floats,
    shares: Mapping[str, Floats],
    label: str,
    levels: Sequence[Level] = (),
) -> Chart:
    """Histograms whose shares are known.

    Args:
        title: what one sees.
        edges: (N + 1,) of the bins.
        shares: (N,) by name.
        label: of the horizontal axis.
        levels: dashed lines across.
    """
    x = Axis(label, float(edges[0]), float(edges[-1]))
    highest = max(float(np.max(s)) for s in shares.values())
    y = Axis("share of pairs", 0.0, 1.05 * highest or 1.0)
    areas = []
    for number, share in enumerate(shares.values()):
        outline = _points(
            x.place(np.concatenate([edges[:1], np.repeat(edges, 2)[1:-1], edges[-1:]])),
            y.place(np.concatenate([[0.0], np.repeat(share, 2), [0.0]])),
        )
        areas.append(f'<polygon class="area s{number}" points="{outline}"/>')
    areas += [_level(level, x, y, row) for row, level in enumerate(levels)]
    return Chart(title, _frame(x, y) + "".join(areas), list(shares))


def bar_chart(title: str, counts: Sequence[int], names: Sequence[str]) -> Chart:
    """Bars with their number above and their name below."""
    most, step = max([1, *counts]), WIDTH / max(len(counts), 1)
    bars = []
    for number, (count, name) in enumerate(zip(counts, names, strict=True)):
        height, left = 100 * count / most, number * step
        bars.append(
            f'<rect class="bar" x="{left + step / 10:.1f}" y="{120 - height:.1f}" '
            f'width="{0.8 * step:.1f}" height="{height:.1f}"/>'
            f'<text x="{left + step / 2:.1f}" y="{115 - height:.1f}" text-anchor="middle">{count}'
            f'</text><text x="{left + step / 2:.1f}" y="136" text-anchor="middle">'
            f"{html.escape(name)}</text>"
        )
    return Chart(title, "".join(bars), height=142)


class Whisker(NamedTuple):
    """A named value with its interval; one without has equal ends."""

    name: str
    value: float
    low: float
    high: float


def whisker_chart(title: str, rows: Sequence[Whisker], x: Axis) -> Chart:
    """Values as dots with their intervals as lines, a row each."""
    height: float = 22 * len(rows) + 46
    marks: list[str] = []
    for value, text in x.ticks():
        left = _left(float(x.place(np.array([value]))[0]), _ROW_LEFT)
        marks.append(
            f'<line class="grid" x1="{left:.1f}" y1="4" x2="{left:.1f}" y2="{height - 40}"/>'
            f'<text x="{left:.1f}" y="{height - 26}" text-anchor="middle">{text}</text>'
        )
    for number, row in enumerate(rows):
        down = 22.0 * number + 16
        dot, low, high = (
            _left(float(v), _ROW_LEFT) for v in x.place(np.array([row.value, row.low, row.high]))
        )
        name = row.name if len(row.name) <= 20 else f"{row.name[:9]}…{row.name[-10:]}"
        marks.append(
            f'<text x="{_ROW_LEFT - 6}" y="{down + 4}" text-anchor="end">{html.escape(name)}</text>'
            f'<line class="line s0" x1="{low:.1f}" y1="{down}" x2="{high:.1f}" y2="{down}"/>'
            f'<circle class="dot s0" r="3.5" cx="{dot:.1f}" cy="{down}"/>'
        )
    label = html.escape(x.label)
    marks.append(f'<text x="{WIDTH / 2}" y="{height - 8}" text-anchor="middle">{label}</text>')
    return Chart(title, "".join(marks), height=height)


def svg_file(charts: Sequence[Chart], columns: int = 2) -> str:
    """Charts beside each other as one SVG file on white, with the key of the first."""
    rows = -(-len(charts) // columns)
    height = rows * (HEIGHT + 24) + 24
    parts = []
    for number, chart in enumerate(charts):
        left, top = number % columns * WIDTH, number // columns * (HEIGHT + 24)
        parts.append(
            f'<text x="{left + WIDTH / 2}" y="{top + 18}" text-anchor="middle">'
            f"{html.escape(chart.title)}</text>"
            + chart.svg(f' x="{left}" y="{top + 24}" width="{WIDTH}" height="{HEIGHT}"')
        )
    at = 12.0
    for number, name in enumerate(charts[0].names):
        parts.append(
            f'<rect class="dot s{number}" x="{at}" y="{height - 17}" width="10" height="10"/>'
            f'<text x="{at + 14}" y="{height - 8}">{html.escape(name)}</text>'
        )
        at += 40 + 6.5 * len(name)
    width = columns * WIDTH
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" color="#222"><style>svg {{ --line: #8886; '
        f"--mark: #2a6fdb }}{STYLE}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def thinned(y: Floats) -> NDArray[np.int64]:
    """Places of a curve to draw: of each stretch the first, lowest, highest and last point."""
    stretches = _MOST_POINTS // 4
    if len(y) <= _MOST_POINTS:
        return np.arange(len(y))
    edges = np.linspace(0, len(y), stretches + 1).astype(np.int64)
    kept = [
        (a, a + int(np.argmin(y[a:b])), a + int(np.argmax(y[a:b])), b - 1)
        for a, b in pairwise(edges.tolist())
    ]
    return np.unique(np.array(kept))


def _pieces(x: Floats, y: Floats) -> list[tuple[Floats, Floats]]:
    """The stretches of a curve between its gaps, thinned."""
    known = np.isfinite(x) & np.isfinite(y)
    ends = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    pieces = []
    for start, end in ends.reshape(-1, 2).tolist():
        kept = start + thinned(y[start:end])
        pieces.append((x[kept], y[kept]))
    return pieces


def _band(number: int, x: Floats, low: Floats, high: Floats, across: Axis, up: Axis) -> str:
    """The area between two curves that begin and end together."""
    known = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
    x, low, high = (np.asarray(v, np.float64)[known] for v in (x, low, high))
    below, above = thinned(-low), thinned(high)
    places = np.concatenate([x[above], x[below][::-1]])
    edges = np.concatenate([high[above], low[below][::-1]])
    outline = _points(across.place(places), up.place(edges))
    return f'<polygon class="band s{number}" points="{outline}"/>'


def _level(level: Level, x: Axis, y: Axis, row: int) -> str:
    """A dashed line; words at upright ones stand in different rows, so that close ones are read."""
    axis = x if level.upright else y
    if not axis.low <= level.value <= axis.high:
        return ""
    share = float(axis.place(np.array([level.value]))[0])
    text = html.escape(level.text)
    if level.upright:
        left = _left(share)
        side, anchor = (-4, "end") if share > 0.6 else (4, "start")
        return (
            f'<line class="level" x1="{left:.1f}" y1="{_TOP}" x2="{left:.1f}" '
            f'y2="{HEIGHT - _BOTTOM}"/><text x="{left + side:.1f}" y="{_TOP + 10 + 13 * row}" '
            f'text-anchor="{anchor}">{text}</text>'
        )
    down = _down(share)
    return (
        f'<line class="level" x1="{_LEFT}" y1="{down:.1f}" x2="{WIDTH - _RIGHT}" y2="{down:.1f}"/>'
        f'<text x="{WIDTH - _RIGHT - 2}" y="{down - 4:.1f}" text-anchor="end">{text}</text>'
    )


def _frame(x: Axis, y: Axis) -> str:
    """Grid lines, numbers and labels of both axes."""
    frame = []
    for value, text in x.ticks():
        share = float(x.place(np.array([value]))[0])
        # The number at the very right stays inside.
        left, anchor = _left(share), "end" if share > 0.97 and len(text) > 3 else "middle"
        at = left + (_RIGHT if anchor == "end" else 0)
        frame.append(
            f'<line class="grid" x1="{left:.1f}" y1="{_TOP}" x2="{left:.1f}" '
            f'y2="{HEIGHT - _BOTTOM}"/><text x="{at:.1f}" y="{HEIGHT - _BOTTOM + 15}" '
            f'text-anchor="{anchor}">{text}</text>'
        )
    for value, text in y.ticks():
        down = _down(float(y.place(np.array([value]))[0]))
        frame.append(
            f'<line class="grid" x1="{_LEFT}" y1="{down:.1f}" x2="{WIDTH - _RIGHT}" '
            f'y2="{down:.1f}"/><text x="{_LEFT - 5}" y="{down + 4:.1f}" '
            f'text-anchor="end">{text}</text>'
        )
    frame.append(
        f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{html.escape(x.label)}</text>"
        f'<text transform="translate(12 {(_TOP + HEIGHT - _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{html.escape(y.label)}</text>'
    )
    return "".join(frame)


def _points(x: Floats, y: Floats) -> str:
    return " ".join(
        f"{_left(a):.1f},{_down(b):.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)
    )


def _left(share: float, start: float = _LEFT) -> float:
    return start + share * (WIDTH - start - _RIGHT)


def _down(share: float) -> float:
    return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)
