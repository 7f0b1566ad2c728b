"""The page of a run with 100,000 logged steps: seconds and memory, beside pandas and matplotlib.

    python benchmarks/pages.py [--out benchmarks/results/pages.json]

The peer reads the same metrics.csv with pandas and draws every column as one SVG with matplotlib:
what somebody would do who wants to look at the file. Both are processes of their own and take
turns; times are medians, the ratio is taken within each round.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from hardware import hardware

ROWS, ROUNDS = 100_000, 5
PEER = """
import sys, pandas, matplotlib
matplotlib.use("svg")
from matplotlib import pyplot as plt
table = pandas.read_csv(sys.argv[1])
columns = [c for c in table.columns if c != "step"]
figure, axes = plt.subplots(-(-len(columns) // 4), 4, figsize=(16, 20))
for column, panel in zip(columns, axes.flat):
    known = table[["step", column]].dropna()
    panel.plot(known["step"], known[column]); panel.set_title(column)
figure.savefig(sys.argv[2])
"""


def write_run(folder: Path) -> None:
    """A log as a training writes it: 22 columns, a validation every 5,000 steps."""
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, ROWS)
    validates = np.arange(ROWS) % 5000 == 4999
    names = ["loss", "accuracy", "feature_norm", "gradient_norm", "lr"]
    names += [f"target_angle_p{p}" for p in (5, 50, 95)]
    columns = {f"train/{name}": 50 * (1 - t) + rng.random(ROWS) for name in names}
    columns |= {f"speed/{n}": rng.random(ROWS) for n in ("images_per_second", "data_wait_share")}
    columns["head/t"] = rng.random(ROWS)
    for name in ("a", "b"):
        for metric in ("accuracy", "auc", "eer", "tar@1e-2", "threshold"):
            columns[f"val/{name}/{metric}"] = np.where(validates, t, np.nan)
    columns["val/mean/accuracy"] = np.where(validates, t, np.nan)
    lines = [",".join(["step", *columns])]
    table = np.column_stack(list(columns.values())).tolist()
    for step, row in enumerate(table):
        lines.append(",".join([str(step), *("" if v != v else repr(v) for v in row)]))
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    config = {"name": "long", "seed": 1, "trainer": {"gradient_clip_val": 5.0}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


# A process takes over the peak of the one that starts it, and this one holds torch: a small one
# stands between.
STARTER = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(time.perf_counter() - start, usage.ru_maxrss / 1024)
sys.exit(status != 0)
"""


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds and MiB at most of a command."""
    starter = [sys.executable, "-S", "-c", STARTER, *command]
    done = subprocess.run(starter, capture_output=True, text=True, check=True)
    seconds, mib = map(float, done.stdout.split())
    return seconds, mib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pages.json"))
    out = parser.parse_args().out
    program = "from marginface.cli.main import app; app()"
    with tempfile.TemporaryDirectory() as place:
        run = Path(place)
        write_run(run)
        ours = [sys.executable, "-c", program, "report", str(run)]
        peer = [sys.executable, "-c", PEER, str(run / "metrics.csv"), str(run / "peer.svg")]
        rounds = [(measured(ours), measured(peer)) for _ in range(ROUNDS)]
        sizes = [(run / name).stat().st_size for name in ("report.html", "peer.svg")]
    middle = statistics.median
    found = {
        "hardware": hardware(),
        "logged_steps": ROWS,
        "seconds": middle(a[0] for a, _ in rounds),
        "mib": middle(a[1] for a, _ in rounds),
        "bytes": sizes[0],
        "peer": "pandas.read_csv and matplotlib, one SVG",
        "peer_seconds": middle(b[0] for _, b in rounds),
        "peer_mib": middle(b[1] for _, b in rounds),
        "peer_bytes": sizes[1],
        "ratio": middle(a[0] / b[0] for a, b in rounds),
    }
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
