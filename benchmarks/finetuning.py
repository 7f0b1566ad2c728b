"""Fine-tuning on real faces: what each way of it gives in equal time, over several seeds.

    python benchmarks/finetuning.py FACES --work logs/finetuning [--seconds 100] [--seeds 3]

FACES holds train/<identity>/*.jpg, dev_cfp_ff.bin and dev_cfp_fp.bin. A network is trained on every
second identity; the others are the "own people". Every row trains for the seconds that are given:
first its speed is measured alone on the machine (--calibrate does only that), then the number of
its steps follows from it, so that a row is the same whatever else the machine does. Called again,
it goes on where it stopped; a training that was killed resumes. The last call writes the result.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardware import hardware

from marginface.metrics.seed_comparison import mean_interval
from marginface.utils.files import write_json

ROOT = Path(__file__).resolve().parents[1]
NETWORK = "miniresnet8_pool"
COMMON = [
    "data=folder", "data.dataset.resize=true", "data.num_workers=1", "backbone.image_size=64",
    "backbone.dropout=0.2", "head.scale=32", "augmentation.affine=0.5", "optimizer=adamw",
    "optimizer.weight_decay=0.2", "scheduler=trapezoidal", "trainer=cpu", "logger=csv",
    "callbacks.progress=null", "trainer.max_epochs=1000", "trainer.check_val_every_n_epoch=1000",
    "trainer.log_every_n_steps=50", "validate_untrained=false",
]  # fmt: skip
SCRATCH, FURTHER = "optimizer.lr=2e-3", "optimizer.lr=5e-4"
MEANS = "head.weights=class_means"
STEPS = 5, 25  # of the two short runs whose difference is the time of a step
NEW_PEOPLE = 20


@dataclass(frozen=True)
class Row:
    """A way of training.

    Attributes:
        data: folder of images.
        settings: of the training; {base} and {old} are checkpoints of `BASE` and `OLD`.
        share: of the seconds of a row.
        network: of the training, where it does not go on from another.
        rests: epochs in which only the head is trained, which take another time.
    """

    data: str
    settings: tuple[str, ...]
    share: float = 1.0
    network: str = NETWORK
    rests: int = 0


FROM_BASE = "backbone.weights={base}"
FULL = ("finetune=full", FROM_BASE, FURTHER)
COMPATIBLE = "finetune.compatible_with={old}"
ROWS = {
    "from scratch": Row("own", (SCRATCH,)),
    "full, random centers": Row("own", FULL),
    "full, class means": Row("own", (*FULL, MEANS)),
    "head_first, random centers": Row("own", ("finetune=head_first", FROM_BASE, FURTHER), rests=1),
    "layer_decay, class means": Row("own", ("finetune=layer_decay", *FULL[1:], MEANS)),
    "full, class means, EMA": Row("own", (*FULL, MEANS, "averaging=ema", "averaging.decay=0.99")),
    "student alone": Row("own", (SCRATCH,), network="miniresnet8_half"),
    "student, distilled": Row(
        "own",
        (SCRATCH, "distillation=teacher", "distillation.teacher={base}"),
        network="miniresnet8_half",
    ),
    "new people on old centers": Row(
        "joined", (*FULL, "head.weights={base}", "head.classes={map}"), share=0.5
    ),
    "new model, alone": Row("all", (SCRATCH,), share=2.0),
    "new model, compatible": Row("all", (SCRATCH, COMPATIBLE), share=2.0),
    "new model, from the old one": Row("all", ("backbone.weights={old}", FURTHER), share=2.0),
}
OLD_SEED = 2
BASE = Row("others", (SCRATCH,))
OLD = Row("others", (SCRATCH,))


class Study:
    """The folder in which everything is kept, and what is trained in it."""

    def __init__(self, faces: Path, work: Path, seconds: float, base_seconds: float) -> None:
        self.faces, self.work = faces.resolve(), work.resolve()
        self.seconds, self.base_seconds = seconds, base_seconds
        self.pairs = [self.faces / "dev_cfp_ff.bin", self.faces / "dev_cfp_fp.bin"]
        self._link_data()

    def _link_data(self) -> None:
        """Folders of every second identity, of the others, and of old and some new ones."""
        people = sorted(p.name for p in (self.faces / "train").iterdir())
        others, own = people[::2], people[1::2]
        sets = {
            "others": others, "own": own, "all": people,
            "joined": sorted(others + own[:NEW_PEOPLE]),
        }  # fmt: skip
        for name, members in sets.items():
            folder = self.work / "data" / name
            folder.mkdir(parents=True, exist_ok=True)
            for person in members:
                link = folder / person
                if not link.is_symlink():
                    link.symlink_to(self.faces / "train" / person)
        joined = {person: number for number, person in enumerate(sets["joined"])}
        lines = [f"{old},{joined[person]}" for old, person in enumerate(others)]
        (self.work / "map.csv").write_text("\n".join(["old,new", *lines]) + "\n")

    def checkpoint(self, name: str) -> Path:
        return self.work / "rows" / name / "checkpoints" / "last.ckpt"

    def command(self, row: Row, folder: Path, *more: str) -> list[str]:
        places = {
            "base": self.checkpoint("base"), "old": self.checkpoint("old"),
            "map": self.work / "map.csv",
        }  # fmt: skip
        settings = [setting.format(**places) for setting in row.settings]
        pairs = ",".join(map(str, self.pairs))
        return [
            sys.executable, "train.py", f"backbone={row.network}", *COMMON, *settings,
            f"data.root={self.work / 'data' / row.data}", f"data.pairs=[{pairs}]",
            f"hydra.run.dir={folder}", *more,
        ]  # fmt: skip

    def train(self, name: str, row: Row, steps: int, seed: int) -> dict[str, float]:
        """The result of a training, which is carried out unless it is there."""
        folder = self.work / "rows" / name
        result = folder / "result.json"
        if not result.is_file() or "val/mean/accuracy" not in json.loads(result.read_text()):
            print(f"{name}: {steps} steps", flush=True)
            _run(self.command(row, folder, f"trainer.max_steps={steps}", f"seed={seed}"))
        return json.loads(result.read_text())

    def speeds(self, name: str, row: Row) -> dict[str, float]:
        """Seconds of a step, and of what comes before the first; measured once."""
        path = self.work / "speeds.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        if name not in known:
            found = {"step": self._seconds_of_step(row, name)}
            if row.rests:  # which is what was measured; the steps after it are those of full
                full = ROWS[name.replace("head_first", "full")]
                found = {"resting": found["step"], "step": self._seconds_of_step(full, name)}
            if MEANS in row.settings:
                found["means"] = self._seconds_of_means(row, name)
            known[name] = found
            write_json(path, known)
            print(f"{name}: {found}", flush=True)
        return known[name]

    def _seconds_of_step(self, row: Row, name: str) -> float:
        folder = self.work / "speed" / slug(name) / ("resting" if row.rests else "step")
        quick = ["trainer.log_every_n_steps=5", f"trainer.max_steps={STEPS[1]}",
                 "trainer.limit_val_batches=0", "resume=never"]  # fmt: skip
        _run(self.command(row, folder, *quick))
        with (folder / "metrics.csv").open() as file:
            rows = [r for r in csv.DictReader(file) if int(r["step"]) > STEPS[0]]
        rates = sorted(float(r["speed/images_per_second"]) for r in rows)
        return 128 / rates[len(rates) // 2]

    def _seconds_of_means(self, row: Row, name: str) -> float:
        times = []
        for number, without in enumerate((True, False)):
            kept = tuple(s for s in row.settings if not (without and s == MEANS))
            changed = Row(row.data, kept, network=row.network)
            folder = self.work / "speed" / slug(name) / f"means{number}"
            start = time.perf_counter()
            quick = ("trainer.max_steps=1", "trainer.limit_val_batches=0", "resume=never")
            _run(self.command(changed, folder, *quick))
            times.append(time.perf_counter() - start)
        return max(times[1] - times[0], 0.0)

    def steps(self, name: str, row: Row, seconds: float) -> int:
        """How many steps take so long."""
        known = self.speeds(name, row)
        seconds -= known.get("means", 0.0)
        resting = 0
        if row.rests:
            images = sum(1 for _ in (self.work / "data" / row.data).glob("*/*.jpg"))
            resting = row.rests * (images // 128)
            seconds -= resting * known["resting"]
        return max(round(seconds / known["step"]), 1) + resting

    def across(self, new: str) -> dict[str, float]:
        """Accuracies of new probes in a gallery of the old network."""
        folder = self.work / "across" / new
        if not (folder / "result.json").is_file():
            files = ",".join(map(str, self.pairs))
            _run(
                [
                    sys.executable,
                    "evaluate.py",
                    f"checkpoint={self.checkpoint(new)}",
                    f"gallery_checkpoint={self.checkpoint('old')}",
                    "cache=false",
                    f"benchmark.pairs.files=[{files}]",
                    f"hydra.run.dir={folder}",
                    "benchmark.pairs.bootstrap=5",
                ]
            )
        return json.loads((folder / "result.json").read_text())


def slug(name: str) -> str:
    """A folder's name."""
    return name.replace(",", "").replace(" ", "_")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def accuracies(result: dict[str, float]) -> dict[str, float]:
    """ff and fp in percent."""
    return {
        name: 100 * next(v for k, v in result.items() if k.endswith(f"cfp_{name}/accuracy"))
        for name in ("ff", "fp")
    }


def seeds_of(name: str, count: int) -> list[int]:
    """Seeds of a row; a network that begins with the old one's weights stays comparable with it."""
    numbers = range(1, count + 2)
    return [n for n in numbers if n != OLD_SEED or not name.startswith("new model")][:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--work", type=Path, default=ROOT / "logs" / "finetuning")
    parser.add_argument("--seconds", type=float, default=100)
    parser.add_argument("--base-seconds", type=float, default=480)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=ROWS, help="these rows; all when not given")
    parser.add_argument("--calibrate", action="store_true", help="only measure the speeds")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/finetuning.json")
    given = parser.parse_args()
    study = Study(given.faces, given.work, given.seconds, given.base_seconds)
    base_steps = study.steps("base", BASE, given.base_seconds)
    found: dict[str, Any] = {"base": [accuracies(study.train("base", BASE, base_steps, 1))]}
    old_steps = study.steps("base", BASE, given.seconds)
    found["old"] = [accuracies(study.train("old", OLD, old_steps, OLD_SEED))]
    plan = {name: study.steps(name, row, given.seconds * row.share) for name, row in ROWS.items()}
    if given.calibrate:
        return
    for place in range(given.seeds):
        for name, row in ROWS.items():
            if given.only and name not in given.only:
                continue
            seed = seeds_of(name, given.seeds)[place]
            run = f"{slug(name)}-seed{seed}"
            result = accuracies(study.train(run, row, plan[name], seed))
            found.setdefault(name, []).append(result)
            if name.startswith("new model"):
                across = accuracies(study.across(run))
                found.setdefault(f"{name}: new probes, old gallery", []).append(across)
            write_results(given.out, study, plan, found)


def write_results(path: Path, study: Study, plan: dict[str, int], found: dict[str, Any]) -> None:
    """The result file, and the table on the terminal."""
    speeds = json.loads((study.work / "speeds.json").read_text())
    write_json(
        path,
        {
            "hardware": hardware(),
            "seconds": study.seconds,
            "base_seconds": study.base_seconds,
            "steps": plan,
            "seconds_of_steps": speeds,
            "accuracy": found,
        },
    )
    for name, values in found.items():
        cells = []
        for pairs in ("ff", "fp"):
            numbers = [v[pairs] for v in values]
            if len(numbers) > 1:
                low, high = mean_interval(numbers)[1:3]
                cells.append(f"{sum(numbers) / len(numbers):.2f} ({low:.2f} to {high:.2f})")
            else:
                cells.append(f"{numbers[0]:.2f}")
        print(f"| {name} | {len(values)} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
