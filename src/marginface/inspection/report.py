"""The page and the JSON file of an inspection."""

import json
from collections import Counter
from pathlib import Path

import numpy as np

from marginface.data.alignment.mean_face import template_face
from marginface.inspection.findings import Finding, Findings
from marginface.reporting.html_page import Page
from marginface.reporting.svg_charts import bar_chart
from marginface.utils.files import atomic_write

_BOUNDS = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000]


def write_inspection(findings: Findings, folder: Path) -> Path:
    """Write inspect-data.html and inspect-data.json; returns the page."""
    with atomic_write(folder / "inspect-data.json", "w") as file:
        json.dump(findings.as_json(), file, indent=1)
    page = Page(f"Inspected: {findings.root}")
    if findings.faults:
        page.text(f"{len(findings.faults)} faults", "bad")
    else:
        page.text("no faults", "good")
    for note in findings.notes:
        page.text(note)
    page.table([*findings.counts.items(), ("suspicions", len(findings.suspicions))])
    names, counts = _histogram(findings.images_per_identity)
    page.charts([bar_chart("identities by their number of images", counts, names)])
    _findings(page, "Faults", findings.faults)
    _alignment(page, findings)
    _findings(page, "Suspicions", findings.suspicions)
    page.heading("Pictures")
    for title, sheet in findings.sheets.items():
        page.picture(sheet, title)
    for title, rows in findings.outliers.items():
        page.folded(title, rows, ("image", "value"))
    path = folder / "inspect-data.html"
    page.write(path)
    return path


def _findings(page: Page, title: str, found: list[Finding]) -> None:
    page.heading(title)
    if not found:
        page.text("none")
    for kind, count in Counter(finding.kind for finding in found).most_common():
        rows = [(f.where, f.reason) for f in found if f.kind == kind]
        page.folded(f"{kind}: {count}", rows, ("where", "what"))


def _alignment(page: Page, findings: Findings) -> None:
    page.heading("Alignment")
    fit = findings.fit
    if fit is None or findings.mean_face is None:
        page.text("no image could be read")
        return
    if fit.is_aligned:
        page.text(
            f"The mean face sits on the template (correlation with its drawing "
            f"{fit.correlation:.2f}; 0.4 to 0.55 is usual).",
            "good",
        )
    else:
        page.text(
            f"The mean face is off the template: correlation {fit.correlation:.2f} there, "
            f"{fit.best:.2f} at {fit.scale:g} times the size, turned by {fit.turn:g} degrees and "
            f"shifted by ({fit.right:g}, {fit.down:g}) pixels.",
            "bad",
        )
    drawing = template_face()
    page.picture(findings.mean_face, "mean face", width=168)
    page.picture(255 * (drawing - drawing.min()) / np.ptp(drawing), "the template", width=168)


def _histogram(images: np.ndarray) -> tuple[list[str], list[int]]:
    """Identities by their number of images: 1, 2, 3 to 4, 5 to 9, ..."""
    names, counts = [], []
    for low, end in zip(_BOUNDS, [*_BOUNDS[1:], np.inf], strict=True):
        names.append(
            str(low) if end == low + 1 else f"{low}+" if end == np.inf else f"{low}-{end - 1:g}"
        )
        counts.append(int(((images >= low) & (images < end)).sum()))
    while len(counts) > 1 and not counts[-1]:
        names.pop()
        counts.pop()
    return names, counts
