"""Run folders as a training leaves them, written in a moment."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CONFIG: dict[str, Any] = {
    "name": "x2softmax-net-faces-seed1",
    "seed": 1,
    "head": {"name": "x2softmax", "k": 0.65},
    "optimizer": {"lr": 0.1},
    "data": {"num_workers": 2, "seed": 1},
    "trainer": {"gradient_clip_val": 5.0, "max_epochs": 3},
    "paths": {"run_dir": "RUN"},
}
# curves.json of a run.
CURVES: dict[str, Any] = {
    "head": {"degrees": [0, 90, 180], "target": [1.0, 0.0, -1.0]},
    "validation": {
        "after_steps": 591,
        "sets": {
            "dev": {
                "far": [0.0, 0.1, 1.0], "tar": [0.0, 0.9, 1.0], "edges": [-1.0, 0.0, 1.0],
                "genuine": [0.1, 0.9], "impostor": [0.8, 0.2], "genuine_pairs": 100,
                "impostor_pairs": 1000, "threshold": 0.35,
            }
        },
    },
}  # fmt: skip
Columns = Mapping[str, Sequence[float] | np.ndarray]


def healthy(rows: int = 60) -> dict[str, np.ndarray]:
    """Columns of a log without anything wrong: three epochs, a validation after each."""
    t = np.linspace(0, 1, rows)
    wave = 0.3 * np.sin(40 * t)
    validates = np.isin(np.arange(rows), [rows // 3, 2 * rows // 3, rows - 1])

    def of_validation(low: float, high: float) -> np.ndarray:
        return np.where(validates, low + (high - low) * t, np.nan)

    return {
        "step": np.arange(rows) * 10.0,
        "epoch": np.floor(2.999 * t),
        "train/loss": 20 - 15 * t + wave,
        "train/accuracy": 0.1 + 0.7 * t,
        "train/feature_norm": 20 + t,
        "train/gradient_norm": 4 + wave,
        **{f"train/target_angle_p{p}": 90 - 40 * t + p / 5 for p in (5, 50, 95)},
        "train/lr": 0.1 * (1 - t),
        "speed/images_per_second": 500 + wave,
        "speed/data_wait_share": 0.02 + 0 * t,
        **{f"val/dev/{m}": of_validation(0.5, 0.9) for m in ("accuracy", "auc", "tar@1e-2")},
        **{f"val/dev/{m}": of_validation(0.5, 0.1) for m in ("eer", "accuracy_std")},
        "val/dev/threshold": of_validation(0.3, 0.35),
        "val/mean/accuracy": of_validation(0.5, 0.9),
    }


def write_log(folder: Path, columns: Columns) -> None:
    """metrics.csv; NaN is an empty cell."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow("" if np.isnan(v) else repr(float(v)) for v in row)
    text = (folder / "metrics.csv").read_text()
    # Steps are whole numbers there.
    lines = [line.split(",", 1) for line in text.splitlines()]
    numbers = [lines[0][0], *(str(int(float(step))) for step, _ in lines[1:])]
    joined = [f"{number},{rest}" for number, (_, rest) in zip(numbers, lines, strict=True)]
    (folder / "metrics.csv").write_text("\n".join(joined) + "\n")


def write_run(
    folder: Path,
    columns: Columns | None = None,
    *,
    config: dict[str, Any] | None = None,
    result: dict[str, float] | None = None,
    info: dict[str, Any] | None = None,
    state: str = "done",
) -> Path:
    """A run folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = CONFIG | (config or {}) | {"paths": {"run_dir": str(folder)}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    facts = {"starts": [{"command": "train.py seed=1"}], "expected_first_loss": 20.0}
    (folder / "runinfo.json").write_text(json.dumps(facts | (info or {})))
    (folder / "result.json").write_text(json.dumps(result or {"val/mean/accuracy": 0.9}))
    status = {"state": state, "reason": "", "step": 0, "total_steps": 600}
    (folder / "status.json").write_text(json.dumps(status))
    write_log(folder, healthy() if columns is None else columns)
    return folder


def write_sweep(
    folder: Path, accuracies: Mapping[str, Mapping[int, float]], log: Columns | None = None
) -> Path:
    """A sweep over heads and seeds; returns its folder."""
    number = 0
    for head, seeds in accuracies.items():
        for seed, accuracy in seeds.items():
            config = {
                "name": f"{head}-seed{seed}", "seed": seed, "head": {"name": head},
                "data": {"num_workers": 2, "seed": seed},
            }  # fmt: skip
            result = {f"val/{name}/accuracy": accuracy for name in ("mean", "dev")}
            write_run(folder / str(number), log, config=config, result=result)
            number += 1
    return folder
