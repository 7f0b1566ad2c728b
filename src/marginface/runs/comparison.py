"""Several runs next to each other: the settings by which they differ, and their metrics."""

import csv
from pathlib import Path
from typing import Any

from rich.table import Table

from marginface.runs.folder import RunFolder
from marginface.utils.files import atomic_write
from marginface.utils.nested import flatten
from marginface.utils.tables import make_table, metric_cell


def compare_runs(folders: list[Path], write_to: Path | None = None) -> Table:
    """One row per run: the settings that differ between them, then their metrics.

    Args:
        folders: run folders with config.yaml and result.json; unfinished ones are marked.
        write_to: also write the full numbers there as CSV.

    Raises:
        MissingInputError: a folder that is not one of a run.
    """
    runs = [RunFolder(folder) for folder in folders]
    configs = [flatten(run.read_config()) for run in runs]
    results = [run.read_result() for run in runs]
    settings = _differing(configs)
    metrics = [key for key in dict.fromkeys(k for r in results for k in r) if _is_compared(key)]
    if write_to is not None:
        _write(write_to, folders, configs, results, settings, metrics)
    rows = [
        (
            folder.name,
            *(config.get(key, "") for key in settings),
            *(metric_cell(key.rsplit("/")[-1], result.get(key)) for key in metrics),
        )
        for folder, config, result in zip(folders, configs, results, strict=True)
    ]
    headings = ("run", *settings, *metrics)
    return make_table(headings, rows, "comparison (percent; losses as they are)")


def _write(
    path: Path,
    folders: list[Path],
    configs: list[dict[str, Any]],
    results: list[dict[str, float]],
    settings: list[str],
    metrics: list[str],
) -> None:
    """The same with all digits, as CSV."""
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", *settings, *metrics])
        for folder, config, result in zip(folders, configs, results, strict=True):
            row = [str(folder), *(config.get(key, "") for key in settings)]
            writer.writerow(row + [result.get(key, "") for key in metrics])


def run_folders(path: Path) -> list[Path]:
    """The run folder itself, or the numbered jobs of a sweep in order."""
    if (path / "config.yaml").is_file():
        return [path]
    jobs = [p for p in path.glob("*") if p.name.isdigit() and (p / "config.yaml").is_file()]
    return sorted(jobs, key=lambda p: int(p.name)) or [path]


def _differing(configs: list[dict[str, Any]]) -> list[str]:
    """Keys that tell the runs apart, those of the head first and without what only follows them."""
    follows = ("name", "paths.", "callbacks.", "logger.", "trainer.default_root_dir")
    keys = [k for k in dict.fromkeys(k for c in configs for k in c) if not k.startswith(follows)]
    differing = [k for k in keys if len({repr(c.get(k)) for c in configs}) > 1]
    if "head.name" in differing:
        # Other heads have other parameters; the name is enough.
        common = [k for k in differing if all(k in c for c in configs)]
        differing = ["head.name", *(k for k in common if not k.startswith("head."))]
    return differing


def _is_compared(key: str) -> bool:
    return key.startswith("val/") and key.rsplit("/")[-1] in ("accuracy", "auc", "eer", "tar@1e-2")
