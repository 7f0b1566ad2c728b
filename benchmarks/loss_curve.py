"""The first losses of a training on this machine, to lay over those of another one.

    python benchmarks/loss_curve.py --root FACES          on a CPU, or on a GPU in three precisions
    python benchmarks/loss_curve.py --compare FIRST SECOND

IResNet-18 at 112 px with X2-Softmax, the same seed, images and order everywhere. Two devices round
differently, so their losses agree at first, part after some dozens of steps, and have to end alike:
a comparison gives the largest relative difference of the first 20 steps, and the means of the last
50 with their standard deviations. Both files must come from the same images, which is checked.
Writes <out>/loss-curve-<cpu or card>.json.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from hardware import card_name, hardware

from marginface.data import open_faces
from marginface.data.formats import find_format

ROOT = Path(__file__).resolve().parents[1]
FIRST, LAST = 20, 50  # steps that are compared
RECIPE = [
    "backbone=iresnet18", "data.batch_size=32", "data.val_identities=0", "head.scale=32",
    "optimizer=sgd", "optimizer.lr=0.02", "seed=1", "logger=csv",
    "trainer.precision=32-true", "trainer.log_every_n_steps=1", "trainer.max_epochs=100",
    "callbacks.progress=null", "callbacks.checkpoint=null", "callbacks.best=null",
    "validate_untrained=false",
]  # fmt: skip
WAYS = {
    "cpu, float32": ["trainer=cpu"],
    "gpu, float32": [
        "trainer=gpu",
        "trainer.float32_matmul_precision=highest",
        "classifier.matmul_precision=float32",
    ],
    "gpu, loss in float16": [
        "trainer=gpu",
        "trainer.float32_matmul_precision=highest",
        "classifier.matmul_precision=float16",
    ],
    "gpu, bf16-mixed": ["trainer=gpu", "trainer.precision=bf16-mixed"],
}


def losses(way: str, root: Path, steps: int, workers: int) -> list[float]:
    """Of every step, by training in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "train.py", f"data={find_format(root)}", f"data.root={root.resolve()}",
            *RECIPE, *WAYS[way], f"trainer.max_steps={steps}", f"data.num_workers={workers}",
            f"hydra.run.dir={folder}",
        ]  # fmt: skip
        # cuDNN's convolutions are TF32 unless they are forbidden to be.
        exact = {} if "bf16" in way else {"NVIDIA_TF32_OVERRIDE": "0"}
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | exact, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{way}: {(done.stderr or done.stdout).strip()[-2000:]}")
        with (Path(folder) / "metrics.csv").open(newline="") as file:
            return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def compare(first: list[float], second: list[float]) -> dict[str, float]:
    """How far two curves are apart at the beginning, and where both end."""
    apart = [abs(a - b) / abs(a) for a, b in zip(first[:FIRST], second[:FIRST], strict=True)]
    ends = [curve[-LAST:] for curve in (first, second)]
    return {
        f"largest relative difference of the first {FIRST}": max(apart),
        **{
            f"{name} of the last {LAST}, {which}": measure(end)
            for which, end in zip(("first", "second"), ends, strict=True)
            for name, measure in (("mean", statistics.fmean), ("deviation", statistics.stdev))
        },
    }


def print_comparisons(first: dict[str, Any], second: dict[str, Any]) -> None:
    if first["images"] != second["images"] or first["recipe"] != second["recipe"]:
        raise SystemExit("the two files come from other images or another recipe")
    for one, a in first["losses"].items():
        for other, b in second["losses"].items():
            if len(a) != len(b):
                raise SystemExit(f"{len(a)} steps of {one}, {len(b)} of {other}: use equal --steps")
            print(f"{one} ({first['hardware']['cpu']}) against {other}:")
            for key, value in compare(a, b).items():
                print(f"  {key}: {value:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="faces: RecordIO, or a folder of identities")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--against", type=Path, help="a file to compare with at once")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("FIRST", "SECOND"))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    if arguments.compare:
        print_comparisons(*(json.loads(path.read_text()) for path in arguments.compare))
        return
    if arguments.root is None:
        parser.error("--root is missing")
    faces = open_faces(str(arguments.root))
    device = "gpu" if torch.cuda.is_available() else "cpu"
    path = arguments.out / f"loss-curve-{card_name()}.json"
    report: dict[str, Any] = {
        "hardware": hardware(), "recipe": RECIPE, "images": faces.content_hash(), "losses": {},
        "seconds": {},
    }  # fmt: skip
    for way in (w for w in WAYS if w.startswith(device)):
        started = time.perf_counter()
        report["losses"][way] = losses(way, arguments.root, arguments.steps, arguments.workers)
        report["seconds"][way] = round(time.perf_counter() - started, 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
        print(f"{way}: {report['losses'][way][0]:.4f} to {report['losses'][way][-1]:.4f}")
    print(f"written to {path}")
    if arguments.against:
        print_comparisons(json.loads(arguments.against.read_text()), report)


if __name__ == "__main__":
    main()
