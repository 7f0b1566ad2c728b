"""Several runs next to each other: the settings by which they differ, and their metrics."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from marginface.runs.folder import RunFolder
from marginface.runs.status import is_pruned
from marginface.utils.files import atomic_write
from marginface.utils.nested import flatten
from marginface.utils.tables import make_table, metric_cell

_MANY_COLUMNS = 12  # more are broken into pieces on a terminal
# What follows from other settings, or changes how a run is carried out and not what comes out.
_NOT_COMPARED = (
    "name", "paths.", "logger.", "resume", "data.num_workers", "trainer.default_root_dir",
    "trainer.log_every_n_steps", "callbacks.step_log.", "callbacks.checkpoint.",
    "callbacks.preemption.", "callbacks.best.", "callbacks.progress", "callbacks.page",
    "callbacks.pruning.",
)  # fmt: skip
# Seeds of parts that are the seed of the run, see configs/data.
_OF_THE_SEED = ("seed", "data.seed")


class ComparedRun(NamedTuple):
    """A run among others.

    Attributes:
        folder: of the run.
        settings: flat, without what follows from others and from its place.
        result: its flat metrics; empty while it has none.
        pruned: whether a sweeper ended it before its time.
    """

    folder: Path
    settings: dict[str, Any]
    result: dict[str, float]
    pruned: bool = False

    @property
    def seed(self) -> int:
        return int(self.settings.get("seed", 0))


def settings_without_seed(config: dict[str, Any]) -> dict[str, Any]:
    """Flat settings of a resolved configuration that other seeds of the experiment have, too."""
    seed = config.get("seed")
    return {
        key: value
        for key, value in _flat_settings(config).items()
        if not (key in _OF_THE_SEED and value == seed)
    }


def _flat_settings(config: dict[str, Any], place: str = "") -> dict[str, Any]:
    """Without what follows from the place of a run; `place` where `paths.run_dir` is missing."""
    place = str(config.get("paths", {}).get("run_dir", place))
    return {
        key: value.replace(place, "RUN") if isinstance(value, str) and place else value
        for key, value in flatten(config).items()
        if not key.startswith(_NOT_COMPARED)
    }


def read_compared(folders: Sequence[Path]) -> list[ComparedRun]:
    """Runs to compare; those without a result are there with an empty one.

    Raises:
        MissingInputError: a folder that is not one of a run.
    """
    runs = []
    for folder in folders:
        run = RunFolder(folder)
        config = run.read_config()
        settings = _flat_settings(config, str(folder))
        runs.append(ComparedRun(folder, settings, run.read_result(), is_pruned(run)))
    return runs


def compare_runs(folders: list[Path], write_to: Path | None = None) -> Table:
    """One row per run: the settings that differ between them, then their metrics.

    Args:
        folders: run folders with config.yaml and result.json; unfinished ones are marked.
        write_to: also write the full numbers there as CSV.

    Raises:
        MissingInputError: a folder that is not one of a run.
    """
    runs = read_compared(folders)
    settings = differing_settings(runs)
    metrics = [key for key in dict.fromkeys(k for r in runs for k in r.result) if _is_compared(key)]
    if write_to is not None:
        _write(write_to, runs, settings, metrics)
    # The mean over the sets says nothing more where there is one.
    single = sum(key.endswith("/accuracy") for key in metrics) == 2
    shown = [key for key in metrics if not (single and key == "val/mean/accuracy")]
    rows = [
        (
            name,
            *(short(run.settings.get(key, "")) for key in settings),
            *(metric_cell(key.rsplit("/")[-1], run.result.get(key)) for key in shown),
        )
        for name, run in zip(names_of(folders), runs, strict=True)
    ]
    headings = ("run", *settings, *shown)
    title = "comparison (percent; losses as they are)"
    if len(headings) > _MANY_COLUMNS and len(rows) < len(headings):  # runs side by side
        first, *rest = zip(headings, *rows, strict=True)
        return make_table(first, rest, title)
    return make_table(headings, rows, title)


def short(value: Any) -> str:
    """A setting as it is read in a table: no more digits than tell values apart."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _write(
    path: Path, runs: Sequence[ComparedRun], settings: list[str], metrics: list[str]
) -> None:
    """The same with all digits, as CSV."""
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", *settings, *metrics])
        for run in runs:
            row = [str(run.folder), *(run.settings.get(key, "") for key in settings)]
            writer.writerow(row + [run.result.get(key, "") for key in metrics])


def run_folders(path: Path) -> list[Path]:
    """The run folder itself, or the jobs of a sweep in order, also those that were renamed."""
    if (path / "config.yaml").is_file():
        return [path]
    # Hydra's own .hydra has a config.yaml as well.
    jobs = [p for p in path.glob("[!.]*") if (p / "config.yaml").is_file()]
    numbered = sorted((p for p in jobs if p.name.isdigit()), key=lambda p: int(p.name))
    return [*numbered, *sorted(p for p in jobs if not p.name.isdigit())] or [path]


def names_of(folders: Sequence[Path]) -> list[str]:
    """The last part of each folder, with the one before where two share it."""
    names = [folder.name for folder in folders]
    if len(set(names)) == len(names):
        return names
    return [f"{folder.absolute().parent.name}/{folder.name}" for folder in folders]


def seeds_of(runs: Sequence[ComparedRun]) -> set[str]:
    """Keys that are the seed of the run in every one of several runs with several seeds."""
    keys = {key for run in runs for key in run.settings if key.endswith(".seed")}
    several = len({run.seed for run in runs}) > 1
    following = {
        key
        for key in keys
        if all(run.settings.get(key) == run.settings.get("seed") for run in runs)
    }
    return {*_OF_THE_SEED, *(following if several else ())}


def differing_settings(runs: Sequence[ComparedRun]) -> list[str]:
    """Keys that tell runs apart, those of the head first and without what only follows them."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    differing = [key for key in keys if len({repr(run.settings.get(key)) for run in runs}) > 1]
    differing = [key for key in differing if key not in seeds_of(runs) or key == "seed"]
    if "head.name" not in differing:
        return differing
    # Other heads have other parameters; those are named that tell runs of one head apart.
    by_head: dict[Any, list[ComparedRun]] = {}
    for run in runs:
        by_head.setdefault(run.settings.get("head.name"), []).append(run)

    def is_varied(key: str) -> bool:
        return any(len({repr(r.settings.get(key)) for r in of}) > 1 for of in by_head.values())

    common = [key for key in differing if all(key in run.settings for run in runs)]
    of_heads = [key for key in differing if key.startswith("head.") and is_varied(key)]
    rest = [key for key in common if not key.startswith("head.")]
    return ["head.name", *of_heads, *rest]


def _is_compared(key: str) -> bool:
    return key.startswith("val/") and key.rsplit("/")[-1] in ("accuracy", "auc", "eer", "tar@1e-2")
