"""What `keep_freed_memory` is worth on this CPU: images/s, seconds in the kernel, peak memory.

    python benchmarks/freed_memory.py                                  the embedded run's network
    python benchmarks/freed_memory.py -- backbone=iresnet18            what follows is for train.py

Runs 40 steps of `train.py` on synthetic faces with and without it, by turns, in processes of their
own. The speed is the median of the steps from the tenth; numbers are medians of the rounds.
Appends to <out>/freed_memory.json (hardware, date).
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hardware import hardware

ROOT = Path(__file__).resolve().parents[1]
STEPS, WARM_UP, ROUNDS = 40, 10, 3


def run(keep: bool, overrides: list[str]) -> dict[str, float]:
    """One training process: images/s, system seconds, highest resident size in GiB."""
    with tempfile.TemporaryDirectory() as name:
        command = [
            sys.executable, "train.py", "trainer=cpu", f"trainer.max_steps={STEPS}",
            "trainer.log_every_n_steps=1", "trainer.limit_val_batches=0", "data.num_workers=0",
            "validate_untrained=false", "logger=csv", "callbacks.checkpoint=null",
            "callbacks.best=null", "callbacks.progress=null", f"hydra.run.dir={name}",
            f"keep_freed_memory={str(keep).lower()}", *overrides,
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": str(os.cpu_count())}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise SystemExit(f"train.py failed: {' '.join(command)}")
        with (Path(name) / "metrics.csv").open(newline="") as file:
            speeds = [float(row["speed/images_per_second"]) for row in csv.DictReader(file)
                      if row["speed/images_per_second"]]  # fmt: skip
    return {
        "images_per_second": statistics.median(speeds[WARM_UP:]),
        "system_seconds": usage.ru_stime,
        "peak_gib": usage.ru_maxrss * 1024 / 2**30,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("overrides", nargs="*", help="after --: settings of train.py")
    arguments = parser.parse_args()
    rounds: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for _ in range(ROUNDS):
        for keep, done in rounds.items():
            done.append(run(keep, arguments.overrides))
            print("kept" if keep else "given back", done[-1], flush=True)

    def medians(keep: bool) -> dict[str, float]:
        return {key: statistics.median(r[key] for r in rounds[keep]) for key in rounds[keep][0]}

    result = {
        "hardware": hardware(),
        "overrides": arguments.overrides,
        "kept": medians(True),
        "given_back": medians(False),
        "rounds": {"kept": rounds[True], "given_back": rounds[False]},
    }
    result["speed_ratio"] = (
        result["kept"]["images_per_second"] / result["given_back"]["images_per_second"]
    )
    path = arguments.out / "freed_memory.json"
    results = json.loads(path.read_text()) if path.is_file() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([*results, result], indent=1) + "\n")
    print(json.dumps(result["kept"]), json.dumps(result["given_back"]), result["speed_ratio"])


if __name__ == "__main__":
    main()
