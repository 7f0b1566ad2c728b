"""The page that marginface align writes."""

import json
from pathlib import Path

from marginface.data.alignment.photos import AlignResult
from marginface.reporting.html_page import Page, grid
from marginface.utils.files import atomic_write


def write_report(result: AlignResult, folder: Path, source: Path, target: Path) -> None:
    """align.html and align.json: counts, every rejected photograph, the mean face, examples."""
    facts = {
        "source": str(source),
        "target": str(target),
        "aligned": len(result.aligned),
        "rejected": result.rejected,
        "several_faces": result.several,
        "centered": result.centered,
    }
    with atomic_write(folder / "align.json", "w") as file:
        json.dump(facts, file, indent=1)
    page = Page(f"Aligned: {source}")
    page.table(
        [
            ("written to", str(target)),
            ("faces aligned", len(result.aligned)),
            ("photographs rejected", len(result.rejected)),
            ("with several faces, the largest taken", len(result.several)),
            ("without a face, the center taken", len(result.centered)),
        ]
    )
    if result.mean is not None:
        page.heading("Mean aligned face")
        page.text("Sharp eyes, nose and mouth mean that the points are right.")
        page.picture(result.mean, "mean of all aligned faces", width=168)
    page.heading("Examples")
    page.picture(grid(result.examples), f"the first {len(result.examples)}")
    if result.rejected:
        page.heading("Rejected")
        counts = [(reason, len(photos)) for reason, photos in result.by_reason().items()]
        page.table(counts, ("reason", "photographs"))
        page.folded("all of them", list(result.rejected.items()), ("photograph", "reason"))
    page.write(folder / "align.html")
