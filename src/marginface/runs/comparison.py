"""Results as tables: of one run at its end, of several beside each other."""

import csv
from pathlib import Path
from typing import Any

from rich.table import Table

from marginface.runs.folder import RunFolder
from marginface.utils.files import atomic_write
from marginface.utils.nested import flatten

_AS_IS = {"threshold"}  # a cosine; everything else is a fraction, printed in percent


def compare_runs(folders: list[Path], write_to: Path | None = None) -> Table:
    """One row per run: the settings that differ between them, then their metrics.

    Args:
        folders: run folders with config.yaml and result.json; unfinished ones are marked.
        write_to: also write the full numbers there as CSV.
    """
    configs, results = [], []
    for folder in folders:
        configs.append(flatten(RunFolder(folder).read_config()))
        results.append(RunFolder(folder).read_result())
    settings = _differing(configs)
    metrics = [key for key in dict.fromkeys(k for r in results for k in r) if _is_compared(key)]
    table = Table(title="comparison (percent; losses as they are)")
    for column in ["run", *settings, *metrics]:
        table.add_column(column, overflow="fold", justify="left" if column == "run" else "right")
    for folder, settings_of, result in zip(folders, configs, results, strict=True):
        row = [folder.name, *(str(settings_of.get(key, "")) for key in settings)]
        table.add_row(*row, *(_shown(key.rsplit("/")[-1], result.get(key)) for key in metrics))
    if write_to is not None:
        with atomic_write(write_to, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["run", *settings, *metrics])
            for folder, settings_of, result in zip(folders, configs, results, strict=True):
                row = [str(folder), *(settings_of.get(key, "") for key in settings)]
                writer.writerow(row + [result.get(key, "") for key in metrics])
    return table


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
        # Other heads have other parameters; the name says it.
        common = [k for k in differing if all(k in c for c in configs)]
        differing = ["head.name", *(k for k in common if not k.startswith("head."))]
    return differing


def _is_compared(key: str) -> bool:
    return key.startswith("val/") and key.rsplit("/")[-1] in ("accuracy", "auc", "eer", "tar@1e-2")


def _shown(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if metric in _AS_IS else f"{100 * value:.2f}"
