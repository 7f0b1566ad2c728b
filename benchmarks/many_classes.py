"""Training steps with millions of classes on this machine: seconds, peak memory, losses.

    python benchmarks/many_classes.py                      2 million classes, 5 steps
    python benchmarks/many_classes.py --classes 4000000 -- classifier=partial_fc

Runs `train.py` in a process of its own on a list of few images whose labels reach to the last
class, with a small backbone and a batch of 128. What follows `--` is added to its command line. The
peak is the process's highest resident size (Linux). What the plain formulation needs at least is
computed beside it: centers, momentum, gradient, the normalized centers and four (B, C) matrices of
float32 (cosines, their scaled copy with the margin, probabilities, gradient). Writes
<out>/many_classes.json (hardware, date).
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hardware import hardware

from marginface.data import SyntheticFaces

ROOT = Path(__file__).resolve().parents[1]
BATCH, WIDTH, STEPS = 128, 512, 5


def write_list(folder: Path, classes: int) -> Path:
    """Enough images for an epoch, their labels spread from the first class to the last."""
    faces = SyntheticFaces(root=folder / "cache", identities=64, images_per_identity=10)
    lines = []
    for index in range(BATCH * STEPS):
        name = f"{index}.png"
        (folder / name).write_bytes(faces.image_bytes(index))
        lines.append(f"{name}\t{index * (classes - 1) // (BATCH * STEPS - 1)}")
    path = folder / "faces.lst"
    path.write_text("\n".join(lines) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=2_000_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("overrides", nargs="*", help="after --: settings of train.py")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        faces = write_list(folder, arguments.classes)
        command = [
            sys.executable, "train.py", "data=list", f"data.root={faces}",
            "data.dataset.label_gaps=keep", "data.val_identities=0", "data.num_workers=0",
            f"data.batch_size={BATCH}", f"trainer.max_steps={STEPS}", "trainer=cpu",
            "trainer.log_every_n_steps=1", "keep_freed_memory=false", "logger=csv",
            "callbacks.checkpoint=null", "callbacks.best=null", "callbacks.progress=null",
            f"hydra.run.dir={folder / 'run'}",
            *arguments.overrides,
        ]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "2"}, check=True)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        with (folder / "run" / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    matrix, logits = 4 * arguments.classes * WIDTH, 4 * BATCH * arguments.classes
    result = {
        "hardware": hardware(),
        "classes": arguments.classes,
        "batch": BATCH,
        "overrides": arguments.overrides,
        "steps": len(rows),
        "losses": [float(row["train/loss"]) for row in rows],
        "seconds_per_step": [BATCH / float(row["speed/images_per_second"]) for row in rows],
        "seconds_in_all": seconds,
        "peak_gib": peak / 2**30,
        "plain_needs_at_least_gib": (4 * matrix + 4 * logits) / 2**30,
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "many_classes.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
