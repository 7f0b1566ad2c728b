"""One self-contained HTML page: no script, no external file; light, dark and on paper."""

import base64
import html
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from marginface.reporting.svg_charts import STYLE, Chart
from marginface.utils.files import atomic_write

_STYLE = (
    """
:root { color-scheme: light dark; --line: #8886; --mark: #2a6fdb; --bad: #b3261e; --good: #2e7d32;
  --card: #8881 }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --good: #81c784 } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 84rem; margin: 1.5rem auto;
  padding: 0 1rem }
h1 { font-size: 1.5rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem } p { margin: .4rem 0; max-width: 60rem }
table { border-collapse: collapse; margin: .5rem 0 } .wide { overflow-x: auto }
td, th { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top }
td { overflow-wrap: anywhere; min-width: 3.5rem }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.bad { color: var(--bad); font-weight: 600 } .good { color: var(--good); font-weight: 600 }
.warning { border-left: .3rem solid var(--bad); padding: .3rem .8rem; background: var(--card) }
.protocol { margin: .1rem 0; opacity: .85 }
pre { background: var(--card); padding: .6rem .8rem; white-space: pre-wrap;
  overflow-wrap: anywhere }
.cards { display: grid; gap: .7rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(11rem, 100%), 1fr)) }
.card { background: var(--card); border-radius: .4rem; padding: .5rem .8rem }
.card b { display: block; font-size: 1.35rem; line-height: 1.3; overflow-wrap: anywhere }
.card span { font-size: .82rem; opacity: .85; display: block; overflow-wrap: anywhere }
.charts { display: grid; gap: .4rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)) }
figure { margin: .3rem 0; vertical-align: top } figure.picture { display: inline-block;
  margin-right: .6rem } figcaption { font-size: .8rem; opacity: .85 }
figure.chart { break-inside: avoid; font-size: .82rem }
figcaption.title { font-size: .9rem; font-weight: 600; opacity: 1 }
img { image-rendering: auto; max-width: 100% } svg.chart { display: block; width: 100% }
.name { display: inline-block; margin-right: .9em; max-width: 100% }
.key { display: inline-block; width: .8em; height: .8em; margin-right: .3em;
  background: var(--s); print-color-adjust: exact; -webkit-print-color-adjust: exact }
details { margin: .5rem 0 } summary { cursor: pointer }
@media print { body { margin: 0; max-width: none } details { display: block }
  figure, tr { break-inside: avoid } h2 { break-after: avoid } }
"""
    + STYLE
)


class Link(NamedTuple):
    """Words that lead to another page, for cells of tables."""

    text: str
    address: str


class Card(NamedTuple):
    """A number that is read first: what it is, its value, and a word on it."""

    label: str
    value: str
    note: str = ""


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
        table = f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"
        self._parts.append(f'<div class="wide">{table}</div>')

    def warning(self, text: str) -> None:
        """A paragraph that is meant to be noticed."""
        self._parts.append(f'<p class="warning">{html.escape(text)}</p>')

    def code(self, text: str) -> None:
        """A command or the like, as it is typed."""
        self._parts.append(f"<pre>{html.escape(text)}</pre>")

    def cards(self, cards: Iterable[Card]) -> None:
        """Numbers to read first, beside each other."""
        shown = "".join(
            f'<div class="card"><span>{html.escape(card.label)}</span>'
            f"<b>{html.escape(card.value)}</b><span>{html.escape(card.note)}</span></div>"
            for card in cards
        )
        self._parts.append(f'<div class="cards">{shown}</div>')

    def charts(self, charts: Iterable[Chart]) -> None:
        """Charts beside each other, as many as the width takes."""
        figures = "".join(chart.figure() for chart in charts)
        if figures:
            self._parts.append(f'<div class="charts">{figures}</div>')

    @contextmanager
    def folding(self, summary: str, *, is_open: bool = False) -> Iterator[None]:
        """What is added within folds away when its summary is clicked."""
        state = " open" if is_open else ""
        self._parts.append(f"<details{state}><summary>{html.escape(summary)}</summary>")
        yield
        self._parts.append("</details>")

    def folded(
        self,
        summary: str,
        rows: Sequence[Sequence[Any]],
        headings: Sequence[str] = (),
        *,
        is_open: bool | None = None,
    ) -> None:
        """A table that folds away; a long one begins folded unless `is_open` says otherwise."""
        with self.folding(summary, is_open=len(rows) <= 40 if is_open is None else is_open):
            self.table(rows, headings)

    def picture(self, rgb: NDArray[Any], caption: str, width: int | None = None) -> None:
        """RGB or gray pixels in 0..255."""
        pixels = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
        encoded = base64.b64encode(cv2.imencode(".png", bgr)[1].tobytes()).decode()
        size = f' width="{width}"' if width else ""
        words = html.escape(caption)
        self._parts.append(
            f'<figure class="picture"><img src="data:image/png;base64,{encoded}" '
            f'alt="{words}"{size}><figcaption>'
            f"{words}</figcaption></figure>"
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
    if isinstance(value, Link):
        words = html.escape(value.text)
        return f'<td><a href="{html.escape(value.address)}">{words}</a></td>'
    if isinstance(value, bool | str) or value is None:
        return f"<td>{html.escape(str(value))}</td>"
    text = f"{value:.4g}" if isinstance(value, float) else f"{value:,}"
    return f'<td class="number">{text}</td>'
