"""Charts as inline SVG: they follow the page into dark mode and onto paper."""

import html
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_WIDTH, _HEIGHT = 312, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 12, 40
_MOST_POINTS = 400  # of a curve; more cannot be seen
SERIES = 6  # colors there are, see page.py


class Series(NamedTuple):
    """A named curve."""

    name: str
    x: NDArray[np.floating]
    y: NDArray[np.floating]


class Axis(NamedTuple):
    """Where an axis begins and ends, and what it says; `log` shows powers of ten."""

    label: str
    low: float
    high: float
    log: bool = False

    def place(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Values to [0, 1]; those outside are moved to the edge."""
        scale: Callable[..., NDArray[np.floating]] = np.log10 if self.log else np.asarray
        inside = scale(np.clip(values, self.low, self.high))
        low, high = scale(np.array([self.low, self.high]))
        return (inside - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Where to write what."""
        if self.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [(10.0**n, f"1e{n}" if n else "1") for n in range(first, last + 1)]
        values = np.linspace(self.low, self.high, 6)
        return [(float(v), f"{v:.3g}") for v in values]


def line_chart(title: str, series: Sequence[Series], x: Axis, y: Axis) -> str:
    """Curves over two axes.

    Args:
        title: what one sees, also for those who do not.
        series: at most SERIES of them.
        x, y: the axes.
    """
    lines = []
    for number, curve in enumerate(series):
        keep = np.unique(np.linspace(0, len(curve.x) - 1, _MOST_POINTS).round().astype(int))
        points = _points(x.place(curve.x[keep]), y.place(curve.y[keep]))
        lines.append(f'<polyline class="line s{number}" points="{points}"/>')
    return _chart(title, "".join(lines), [s.name for s in series], x, y)


def histogram_chart(title: str, values: dict[str, NDArray[np.floating]], label: str) -> str:
    """Shares of several lists of values in common bins, one over the other.

    Args:
        title: what one sees.
        values: by name, none empty.
        label: of the horizontal axis.
    """
    low = min(float(v.min()) for v in values.values())
    high = max(float(v.max()) for v in values.values())
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, 61)
    shares = {name: np.histogram(v, edges)[0] / len(v) for name, v in values.items()}
    x = Axis(label, low, high)
    y = Axis("share of pairs", 0.0, max(float(s.max()) for s in shares.values()))
    areas = []
    for number, share in enumerate(shares.values()):
        outline = _points(
            x.place(np.concatenate([edges[:1], np.repeat(edges, 2)[1:-1], edges[-1:]])),
            y.place(np.concatenate([[0.0], np.repeat(share, 2), [0.0]])),
        )
        areas.append(f'<polygon class="area s{number}" points="{outline}"/>')
    return _chart(title, "".join(areas), list(values), x, y)


def _chart(title: str, marks: str, names: Sequence[str], x: Axis, y: Axis) -> str:
    words = html.escape(title)
    frame = [
        f'<svg class="chart" role="img" aria-label="{words}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}">'
    ]
    for value, text in x.ticks():
        left = _left(float(x.place(np.array([value]))[0]))
        frame.append(
            f'<line class="grid" x1="{left:.1f}" y1="{_TOP}" x2="{left:.1f}" '
            f'y2="{_HEIGHT - _BOTTOM}"/><text x="{left:.1f}" y="{_HEIGHT - _BOTTOM + 15}" '
            f'text-anchor="middle">{text}</text>'
        )
    for value, text in y.ticks():
        top = _down(float(y.place(np.array([value]))[0]))
        frame.append(
            f'<line class="grid" x1="{_LEFT}" y1="{top:.1f}" x2="{_WIDTH - _RIGHT}" '
            f'y2="{top:.1f}"/><text x="{_LEFT - 5}" y="{top + 4:.1f}" '
            f'text-anchor="end">{text}</text>'
        )
    frame.append(marks)
    frame.append(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{html.escape(x.label)}</text>"
        f'<text transform="translate(12 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{html.escape(y.label)}</text></svg>'
    )
    key = "".join(
        f'<span class="key s{number}"></span>{html.escape(name)} '
        for number, name in enumerate(names)
    )
    return f"<figure>{''.join(frame)}<figcaption>{words}<br>{key}</figcaption></figure>"


def _points(x: NDArray[np.floating], y: NDArray[np.floating]) -> str:
    return " ".join(
        f"{_left(a):.1f},{_down(b):.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)
    )


def _left(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _down(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)
