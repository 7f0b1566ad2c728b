"""Tables of heads trained with one recipe: accuracy on unseen identities, several seeds.

    python benchmarks/heads.py synthetic
    python benchmarks/heads.py faces --root FACES/train --pairs a.bin b.bin [--quick]
    python benchmarks/heads.py margins --root FACES/train --pairs a.bin b.bin --jobs 4   on a GPU

Every cell is a process of its own with one thread; as many run at a time as there are cores. Runs
that are done already are not repeated, so a stopped benchmark resumes with the same command.
`margins` is X2-Softmax against two margins each of ArcFace and CosFace with IResNet-18 at 112 px.
Writes <out>/heads_<preset>.json (every run, hardware, date), prints the table for docs/results.md.
"""

import argparse
import hashlib
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from hardware import hardware
from scipy.stats import t as student  # comes with scikit-learn

from marginface.data.formats import find_format
from marginface.heads import list_heads

ROOT = Path(__file__).resolve().parents[1]
COMMON = [
    "logger=csv",
    "callbacks.progress=null",
    "callbacks.checkpoint=null",
    "callbacks.best=null",
    "validate_untrained=false",
    "trainer.log_every_n_steps=20",
]


def synthetic_cells() -> dict[str, list[str]]:
    """Every head with its own defaults."""
    return {name: [f"head={name}"] for name in list_heads()}


def faces_cells() -> dict[str, list[str]]:
    """X2-Softmax against the margins its boundary lies between, both gradients."""
    heads = {
        "x2softmax": ["head=x2softmax"],
        "arcface 0.5": ["head=arcface", "head.margin=0.5"],
        "arcface 0.6": ["head=arcface", "head.margin=0.6"],
        "arcface 0.65": ["head=arcface", "head.margin=0.65"],
    }
    cells = {
        f"{name}, {mode}": [*overrides, f"head.margin_gradient={mode}"]
        for name, overrides in heads.items()
        for mode in ("straight_through", "exact")
    }
    for margin in (0.35, 0.4, 0.45):  # the slope is 1: both gradients are the same run
        cells[f"cosface {margin}, either"] = ["head=cosface", f"head.margin={margin}"]
    return cells


def margins_cells() -> dict[str, list[str]]:
    """The margins that the X2-Softmax paper and the official recipes compare."""
    margins = {"arcface": (0.5, 0.633), "cosface": (0.35, 0.4)}
    return {"x2softmax": ["head=x2softmax"]} | {
        f"{name} {margin}": [f"head={name}", f"head.margin={margin}"]
        for name, of_head in margins.items()
        for margin in of_head
    }


CELLS = {"synthetic": synthetic_cells, "faces": faces_cells, "margins": margins_cells}


def recipe(arguments: argparse.Namespace) -> list[str]:
    """Overrides that all cells of a preset share."""
    if arguments.preset == "synthetic":
        return [
            "trainer=cpu",
            "backbone.image_size=56",
            "data.dataset.identities=200",
            "data.val_identities=50",
            "data.val_pairs=3000",
            "data.num_workers=0",
            f"trainer.max_epochs={arguments.epochs or 8}",
        ]
    pairs = ",".join(str(Path(file).resolve()) for file in arguments.pairs)
    data = [f"data.root={Path(arguments.root).resolve()}", f"data.pairs=[{pairs}]"]
    if arguments.preset == "margins":
        epochs = arguments.epochs or 24
        return [
            f"trainer={'gpu' if torch.cuda.is_available() else 'cpu'}",
            f"data={find_format(Path(arguments.root))}",
            *data,
            "data.batch_size=128",
            "data.num_workers=3",
            "backbone=iresnet18",
            "backbone.dropout=0.2",
            "augmentation.affine=0.5",
            "head.scale=32",  # 64 converges too slowly for so few steps
            "optimizer=adamw",
            "optimizer.lr=2.0e-3",
            "optimizer.weight_decay=0.2",
            "scheduler=trapezoidal",
            f"trainer.max_epochs={epochs}",
            f"trainer.check_val_every_n_epoch={epochs}",
        ]
    if not arguments.quick:
        epochs = [f"trainer.max_epochs={arguments.epochs}"] if arguments.epochs else []
        return ["experiment=faces_demo", *data, "data.num_workers=0", *epochs]
    epochs = arguments.epochs or 4
    return [
        "trainer=cpu",
        "data=folder",
        *data,
        "data.num_workers=0",
        "data.dataset.resize=true",
        "data.batch_size=64",
        "backbone.image_size=56",
        "head.scale=32",
        f"trainer.max_epochs={epochs}",
        f"trainer.check_val_every_n_epoch={epochs}",
    ]


def run_folder(logs: Path, name: str, overrides: list[str]) -> Path:
    """Where a cell is trained: another recipe is another folder."""
    digest = hashlib.sha1(" ".join(overrides).encode(), usedforsecurity=False).hexdigest()[:8]
    return logs / f"{re.sub(r'[^a-z0-9.]+', '_', name)}-{digest}"


def run(overrides: list[str], folder: Path) -> dict[str, Any]:
    """One training run; its result.json with the seconds it took, or what it ended with."""
    done = folder / "benchmark.json"
    if done.is_file():
        return json.loads(done.read_text())
    started = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "train.py", *overrides, f"hydra.run.dir={folder}", "resume=auto"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        last = process.stderr.strip().splitlines()[-1:]
        return {"error": " ".join([f"exit code {process.returncode}", *last])}
    result = json.loads((folder / "result.json").read_text())
    rows = (folder / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("train/loss")
    losses = [float(row.split(",")[column]) for row in rows[1:] if row.split(",")[column]]
    result |= {"seconds": time.perf_counter() - started, "first_loss": losses[0]}
    done.write_text(json.dumps(result))
    return result


def summary(values: list[float]) -> str:
    """Mean, standard deviation over the seeds and 95 % interval of the mean, in percent."""
    mean = 100 * statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    spread = 100 * statistics.stdev(values)
    half = student.ppf(0.975, len(values) - 1) * spread / math.sqrt(len(values))
    return f"{mean:.2f} ± {spread:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def table(cells: dict[str, list[dict[str, Any]]], metrics: list[str]) -> str:
    """Markdown, best first."""
    lines = [
        "| head | seeds | " + " | ".join(metrics) + " | loss, first to last | s a run |",
        "|---" * (4 + len(metrics)) + "|",
    ]
    finished = {n: [r for r in runs if "error" not in r] for n, runs in cells.items()}

    def order(name: str) -> float:
        return -statistics.fmean([r[metrics[0]] for r in finished[name]] or [0.0])

    for name in sorted(cells, key=order):
        runs = finished[name]
        if not runs:
            lines.append(f"| {name} | 0 | {cells[name][0]['error']} |")
            continue
        first, last = (statistics.fmean(r[k] for r in runs) for k in ("first_loss", "train/loss"))
        seconds = statistics.median(r["seconds"] for r in runs)
        numbers = " | ".join(summary([r[metric] for r in runs]) for metric in metrics)
        lines.append(
            f"| {name} | {len(runs)} | {numbers} | {first:.2f} to {last:.2f} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=list(CELLS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--root", help="of faces, not with synthetic")
    parser.add_argument("--pairs", nargs="+", help=".bin files, not with synthetic")
    parser.add_argument(
        "--quick", action="store_true", help="faces: a small network on 56x56 pixels, 4 epochs"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--only", nargs="*", help="names of cells; writes ..._some.json")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    if arguments.preset != "synthetic" and not (arguments.root and arguments.pairs):
        parser.error(f"{arguments.preset} needs --root and --pairs")
    cells = CELLS[arguments.preset]()
    if arguments.only:
        cells = {name: cells[name] for name in arguments.only}
    shared = [*COMMON, *recipe(arguments)]
    logs = ROOT / "logs" / "benchmarks" / arguments.preset
    # Seed by seed, so that a benchmark stopped early has every cell equally often.
    jobs = [
        (name, seed, [*shared, *cells[name], f"seed={seed}"])
        for seed in range(1, arguments.seeds + 1)
        for name in cells
    ]
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in cells}
    if arguments.preset == "synthetic":  # renders the faces once
        run(jobs[0][2], run_folder(logs, jobs[0][0], jobs[0][2]))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        futures = [
            (name, seed, pool.submit(run, overrides, run_folder(logs, name, overrides)))
            for name, seed, overrides in jobs
        ]
        for name, seed, future in futures:
            results[name].append(future.result() | {"seed": seed})
            print(name, seed, {k: v for k, v in results[name][-1].items() if "accuracy" in k})
    one = next((r for runs in results.values() for r in runs if "error" not in r), None)
    if one is None:
        raise SystemExit(f"every run failed: {results}")
    metrics = [k for k in one if k.startswith("val/") and k.endswith(("/accuracy", "/auc"))]
    print(table(results, [m for m in metrics if not m.startswith("val/mean")]))
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"heads_{arguments.preset}{'_some' if arguments.only else ''}.json"
    report = {"hardware": hardware(), "recipe": shared, "runs": results}
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
