"""Failure to acquire: photographs that alignment found no usable face in."""

from pathlib import Path
from typing import Any

from marginface.data.alignment.photos import ACQUISITION
from marginface.data.image_dataset import ImageDataset
from marginface.evaluation.benchmarks.base import BenchmarkResult, ResultTable
from marginface.utils.files import read_json

_ABOVE = 3  # folders above the images in which the account of `marginface align` may be


def add_acquisition(result: BenchmarkResult, faces: ImageDataset) -> None:
    """Add how many photographs failed, where the images were made by `marginface align`.

    A photograph without a face is in no pair: rates of error leave it out, and people do not.
    """
    account = _account(getattr(faces, "root", None))
    if account is None:
        return
    total, rejected = account["photographs"], sum(account["rejected"].values())
    result.counts["photographs before alignment"] = total
    result.counts["failure to acquire (photographs)"] = rejected
    rows: list[tuple[Any, ...]] = [
        ("all reasons", rejected, f"{100 * rejected / max(total, 1):.2f}")
    ]
    rows += [
        (reason, count, f"{100 * count / max(total, 1):.2f}")
        for reason, count in account["rejected"].items()
    ]
    title = f"Failure to acquire: {rejected:,} of {total:,} photographs, when they were aligned"
    result.tables.append(ResultTable(title, ("reason", "photographs", "percent"), rows))


def _account(root: Path | str | None) -> dict[str, Any] | None:
    """What `marginface align` left in the folder of the images or a little above."""
    if root is None:
        return None
    folder = Path(root).resolve()
    for place in [folder, *folder.parents][:_ABOVE]:
        if (place / ACQUISITION).is_file():
            found: dict[str, Any] = read_json(place / ACQUISITION)
            return found
    return None
