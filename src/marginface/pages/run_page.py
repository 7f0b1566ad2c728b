"""report.html of a run: what came out, what happened, what was set."""

import json
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

from marginface.pages.run_charts import last_validation_charts, training_charts, verification_charts
from marginface.pages.run_data import RunData, read_run
from marginface.pages.run_warnings import run_warnings
from marginface.reporting.html_page import Card, Page
from marginface.runs.folder import RunFolder
from marginface.runs.metrics import known
from marginface.utils.nested import flatten
from marginface.utils.tables import metric_cell

_OF_THE_FOLDER = ("hydra.run.dir=", "hydra.mode=", "paths.sweep_name=", "++callbacks.pruning=")
_COLUMNS = ("accuracy", "accuracy_std", "auc", "eer", "tar@1e-3", "tar@1e-2", "threshold")


def write_run_page(folder: RunFolder | str | Path) -> Path:
    """Write report.html into a run folder; returns its path.

    Raises:
        MissingInputError: a folder that is not one of a run.
        InputError: a file in it that cannot be read.
    """
    run = read_run(folder.path if isinstance(folder, RunFolder) else Path(folder))
    page = Page(str(run.config.get("name", run.run.path.name)))
    page.text(_headline(run))
    page.cards(_cards(run))
    for warning in run_warnings(run):
        page.warning(f"Warning: {warning}")
    if not run.columns:
        page.text("No step has been logged yet.")
    _verification(page, run)
    page.heading("Training")
    page.charts(training_charts(run))
    _settings(page, run)
    _facts(page, run)
    page.write(run.run.report)
    return run.run.report


def _headline(run: RunData) -> str:
    status = run.status
    of_total = f" of {status.total_steps:,}" if status.total_steps else ""
    at = datetime.fromtimestamp(status.changed).strftime("%Y-%m-%d %H:%M")
    return f"{status.state.capitalize()} at step {status.step:,}{of_total}; as of {at}."


def _cards(run: RunData) -> list[Card]:
    cards = []
    best = run.best()
    if best is not None:
        sets = f"mean over {len(run.sets)} sets, " if len(run.sets) > 1 else ""
        note = f"{sets}after {best[0]:,} steps"
        cards.append(Card("best verification accuracy", f"{100 * best[1]:.2f} %", note))
    for name in run.sets:
        accuracy = _last(run, f"val/{name}/accuracy")
        if accuracy is None:
            continue
        threshold = _last(run, f"val/{name}/threshold")
        untrained = run.result.get(f"untrained/{name}/accuracy")
        notes = [f"threshold {threshold:.3f}"] if threshold is not None else []
        notes += [f"untrained {100 * untrained:.1f} %"] if untrained is not None else []
        cards.append(Card(f"{name}, last", f"{100 * accuracy:.2f} %", ", ".join(notes)))
        tar = _last(run, f"val/{name}/tar@1e-2")
        if tar is not None:
            cards.append(Card(f"{name}, TAR at FAR 1e-2", f"{100 * tar:.2f} %"))
    loss, accuracy = _last(run, "train/loss"), _last(run, "train/accuracy")
    if loss is not None and accuracy is not None:
        note = f"{100 * accuracy:.1f} % right without margin"
        cards.append(Card("training loss, last", f"{loss:.4g}", note))
    speed = known(run.columns, "speed/images_per_second")[1]
    if len(speed):
        middle = sorted(speed[1:] if len(speed) > 1 else speed)[len(speed[1:]) // 2]
        cards.append(Card("speed", f"{middle:,.0f}", "images per second, median"))
    return cards


def _last(run: RunData, name: str) -> float | None:
    values = known(run.columns, name)[1]
    return float(values[-1]) if len(values) else None


def _verification(page: Page, run: RunData) -> None:
    page.heading("Verification")
    if not run.sets:
        page.text("Nothing has been verified: no validation ran yet, or there are no pairs.")
        return
    page.charts([*verification_charts(run), *last_validation_charts(run)])
    rows = []
    for name in run.sets:
        cells = [metric_cell(column, _last(run, f"val/{name}/{column}")) for column in _COLUMNS]
        rows.append((name, *cells))
    headings = ("set (percent; threshold as a cosine)", *_COLUMNS)
    page.folded("The last validation in numbers", rows, headings, is_open=False)


def _settings(page: Page, run: RunData) -> None:
    page.heading("Settings")
    starts = run.info.get("starts", [])
    if starts:
        page.text("The command that repeats it:")
        page.code(_typed(starts[0]["command"]))
    if len(starts) > 1:
        page.text(f"It was started {len(starts)} times; the last command:")
        page.code(_typed(starts[-1]["command"]))
    changed = run.info.get("changed_settings")
    if changed:
        differing = [(key, _words(now), _words(usual)) for key, (now, usual) in changed.items()]
        page.folded("Not the defaults", differing, ("setting", "value", "default"), is_open=True)
    elif changed is not None:
        page.text("All settings are the defaults.")
    rows = [(key, _words(value)) for key, value in flatten(run.config).items()]
    page.folded("All settings", rows, ("setting", "value"), is_open=False)


def _typed(command: str) -> str:
    """A command line of a process as it is typed; without the folder, where it would resume."""
    script, *words = shlex.split(command)
    kept = [word for word in words if not word.startswith(_OF_THE_FOLDER)]
    program = ["marginface", "train"] if "cli/scripts/train.py" in script else ["python", script]
    return shlex.join([*program, *kept])


def _facts(page: Page, run: RunData) -> None:
    info = run.info
    page.heading("Data, machine, versions")
    data = info.get("dataset", info.get("data", {}))
    tables = {
        "Data": flatten(data),
        "Machine": info.get("machine", {}) | {
            key: info[key] for key in ("world_size", "devices", "precision") if key in info
        },
        "Versions": info.get("versions", {}) | {
            key: info[key] for key in ("python", "platform", "git", "lock_sha256") if key in info
        },
    }  # fmt: skip
    for title, facts in tables.items():
        rows = [(key.replace("_", " "), _cell(value)) for key, value in facts.items()]
        page.folded(title, rows, is_open=title == "Data")


def _cell(value: Any) -> Any:
    return value if isinstance(value, int | float) else _words(value)


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
