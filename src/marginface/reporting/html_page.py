"""One self-contained HTML page: no script, no external file; light, dark and on paper."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from marginface.utils.files import atomic_write

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --mark: #2a6fdb; --bad: #c62828; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; margin: .5rem 0 }
td, th { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: left }
td { overflow-wrap: anywhere }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.bad { color: var(--bad); font-weight: 600 } .good { color: #2e7d32; font-weight: 600 }
.protocol { margin: .1rem 0; opacity: .85 }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80 } .good { color: #81c784 } }
img { image-rendering: auto; max-width: 100% }
figure { display: inline-block; margin: .3rem .6rem .3rem 0; vertical-align: top }
figcaption { font-size: .8rem; opacity: .8 }
.bar { fill: var(--mark) } svg text { fill: currentColor; font-size: 11px }
svg.chart { max-width: 100%; height: auto } .grid { stroke: var(--line); stroke-width: .6 }
.line { fill: none; stroke-width: 1.8 } .area { fill-opacity: .35; stroke-width: 1 }
.s0 { --s: #2a6fdb } .s1 { --s: #d9730d } .s2 { --s: #2e9e5b } .s3 { --s: #a83fc1 }
.s4 { --s: #c2344d } .s5 { --s: #7a7a7a }
.line, .area { stroke: var(--s) } .area { fill: var(--s) }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .8em;
  background: var(--s); print-color-adjust: exact; -webkit-print-color-adjust: exact }
details { margin: .5rem 0 } summary { cursor: pointer }
@media print { body { margin: 0; max-width: none } details { display: block }
  figure, tr { break-inside: avoid } h2 { break-after: avoid } }
"""


class Page:
    """Collects sections and writes them.

    Args:
        title: heading of the page.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str, mark: str = "") -> None:
        """A paragraph; `mark` good or bad colors it."""
        kind = f' class="{mark}"' if mark else ""
        self._parts.append(f"<p{kind}>{html.escape(text)}</p>")

    def table(self, rows: Iterable[Sequence[Any]], headings: Sequence[str] = ()) -> None:
        """Rows of values; numbers stand to the right."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in headings)
        body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
        self._parts.append(f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>")

    def folded(self, summary: str, rows: Sequence[Sequence[Any]], headings: Sequence[str]) -> None:
        """A table that folds away when its summary is clicked; a long one begins folded."""
        state = " open" if len(rows) <= 40 else ""
        self._parts.append(f"<details{state}><summary>{html.escape(summary)}</summary>")
        self.table(rows, headings)
        self._parts.append("</details>")

    def chart(self, svg: str) -> None:
        """A chart from charts.py."""
        self._parts.append(svg)

    def picture(self, rgb: NDArray[Any], caption: str, width: int | None = None) -> None:
        """RGB or gray pixels in 0..255."""
        pixels = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
        encoded = base64.b64encode(cv2.imencode(".png", bgr)[1].tobytes()).decode()
        size = f' width="{width}"' if width else ""
        words = html.escape(caption)
        self._parts.append(
            f'<figure><img src="data:image/png;base64,{encoded}" alt="{words}"{size}>'
            f"<figcaption>{words}</figcaption></figure>"
        )

    def histogram(self, counts: Sequence[int], names: Sequence[str], caption: str) -> None:
        """Bars with their number above and their name below."""
        most, step = max([1, *counts]), 46
        bars = []
        for number, (count, name) in enumerate(zip(counts, names, strict=True)):
            height, left = 100 * count / most, number * step
            bars.append(
                f'<rect class="bar" x="{left + 4}" y="{120 - height:.1f}" width="{step - 8}" '
                f'height="{height:.1f}"/><text x="{left + step / 2}" y="{115 - height:.1f}" '
                f'text-anchor="middle">{count}</text><text x="{left + step / 2}" y="136" '
                f'text-anchor="middle">{html.escape(name)}</text>'
            )
        width = step * len(counts)
        self._parts.append(
            f'<figure><svg role="img" aria-label="{html.escape(caption)}" width="{width}" '
            f'height="142" viewBox="0 0 {width} 142">{"".join(bars)}</svg>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    def write(self, path: Path) -> None:
        """Write the page."""
        title = html.escape(self.title)
        with atomic_write(path) as file:
            text = (
                '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
                '<meta name="viewport" content="width=device-width, initial-scale=1">'
                f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n"
                + "\n".join(self._parts)
                + "\n</body></html>\n"
            )
            # Names of files need not be UTF-8; what is not becomes a question mark.
            file.write(text.encode("utf-8", "replace"))


def grid(faces: Sequence[NDArray[np.uint8]], columns: int = 12) -> NDArray[np.uint8]:
    """Faces of one size side by side, row by row, on black."""
    rows = -(-len(faces) // columns)
    size = faces[0].shape[0]
    sheet = np.zeros((rows * size, min(columns, len(faces)) * size, 3), np.uint8)
    for number, face in enumerate(faces):
        top, left = number // columns * size, number % columns * size
        sheet[top : top + size, left : left + size] = face
    return sheet


def _cell(value: Any) -> str:
    if isinstance(value, bool | str) or value is None:
        return f"<td>{html.escape(str(value))}</td>"
    text = f"{value:.4g}" if isinstance(value, float) else f"{value:,}"
    return f'<td class="number">{text}</td>'
