"""What a step in the steady state asks of tensors that a GPU would have to be waited for."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.paths import ROOT
from helpers.runs import compose
from helpers.waits import Waits
from marginface.classifier.centers import ClassCenters
from marginface.classifier.own_places import OwnPlaces
from marginface.training import train
from marginface.training.late_numbers import LateNumbers
from marginface.training.module import FaceRecognizer

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def old(tiny_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    train(compose(*tiny_run, "trainer.max_steps=2", "data.val_identities=0", run_dir=folder))
    return folder / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize(
    "changes",
    [
        ["augmentation=flip"],
        ["augmentation=strong"],
        ["classifier.sample_rate=0.9"],
        ["classifier.sample_rate=0.9", "classifier.optimizer_in_backward=true"],
        ["head=dynarcface", "classifier.chunk_mib=0.01"],
        pytest.param(["head=curricularface", "classifier.chunk_mib=0.01"], marks=pytest.mark.slow),
        ["averaging=ema", "trainer.accumulate_grad_batches=2"],
        ["distillation=teacher", "distillation.teacher={old}"],
        ["++finetune.compatible_with={old}"],
    ],
    ids=" ".join,
)
def test_steps_between_logged_ones_wait_for_nothing(
    changes: list[str],
    tiny_run: list[str],
    old: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = Waits()
    begin = FaceRecognizer.on_train_batch_start

    def watched(module: FaceRecognizer, batch: Any, batch_idx: int) -> None:
        if batch_idx % module.trainer.accumulate_grad_batches == 0:
            if module.trainer.global_step == 5:
                waits.__enter__()
            if module.trainer.global_step == 9:
                waits.__exit__(None, None, None)
        begin(module, batch, batch_idx)

    monkeypatch.setattr(FaceRecognizer, "on_train_batch_start", watched)
    # As on a GPU, where the numbers of rows in chunks are not counted.
    monkeypatch.setattr(OwnPlaces, "_sorted_into", lambda places, chunks: None)
    looked: list[int] = []
    exchange, look_at = LateNumbers.exchange, ClassCenters._look_at

    def later(self: LateNumbers, tensor: torch.Tensor, of_step: Any) -> Any:
        looked.append(1)
        return exchange(self, tensor, of_step)

    def known(self: ClassCenters, labels: torch.Tensor) -> Any:
        assert self._known is not None
        assert self._known.labels is labels, "the labels were not looked at on the host"
        assert self._known.equal_parts, "processes would have to ask each other"
        return look_at(self, labels)

    monkeypatch.setattr(LateNumbers, "exchange", later)
    monkeypatch.setattr(ClassCenters, "_look_at", known)
    settings = [*tiny_run, "trainer.max_steps=12", "trainer.log_every_n_steps=100"]
    settings += ["data.val_identities=0", "trainer.max_epochs=100"]
    settings += [change.format(old=old) for change in changes]
    train(compose(*settings, run_dir=tmp_path))
    assert len(looked) == 12 * (2 if "trainer.accumulate_grad_batches=2" in changes else 1)
    assert waits.found == set()


# A process of two: what its steps 5 to 8 wait for, and what they ask the other one.
_OF_TWO = """
import sys
import torch.distributed as dist
from helpers.runs import compose
from helpers.waits import Waits
from marginface.classifier.own_places import OwnPlaces
from marginface.training import train
from marginface.training.module import FaceRecognizer
from marginface.utils import distributed

waits, begin, asked = Waits(), FaceRecognizer.on_train_batch_start, []
ways = [(dist, "broadcast"), (distributed, "rows_of_ranks")]
before = [getattr(module, name) for module, name in ways]

def noted(function, name):
    return lambda *given, **named: (asked.append(name), function(*given, **named))[1]

def watched(module, batch, batch_idx):
    step = module.trainer.global_step
    for (place, name), function in zip(ways, before):
        setattr(place, name, noted(function, name) if 5 <= step < 9 else function)
    if step == 5:
        waits.__enter__()
    if step == 9:
        waits.__exit__(None, None, None)
    begin(module, batch, batch_idx)

FaceRecognizer.on_train_batch_start = watched
OwnPlaces._sorted_into = lambda places, chunks: None  # as on a GPU
train(compose(*sys.argv[2:], run_dir=sys.argv[1]))
found = sorted(waits.found) + sorted(asked)
assert found == [], found
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(["trainer=ddp_gloo", "head=adaface"], marks=pytest.mark.long),
        ["trainer=class_parallel"],
        pytest.param(
            ["trainer=ddp_gloo", "distillation=teacher", "distillation.teacher={old}"],
            marks=pytest.mark.long,
        ),
    ],
)
def test_steps_of_two_processes_wait_for_nothing(
    settings: list[str], tiny_run: list[str], old: Path, tmp_path: Path, command: Command
) -> None:
    script = tmp_path / "of_two.py"
    script.write_text(_OF_TWO)
    run = [
        *tiny_run,
        *(setting.format(old=old) for setting in settings),
        "trainer.accelerator=cpu",
        "trainer.devices=2",
    ]
    run += ["trainer.max_steps=12", "trainer.log_every_n_steps=100", "data.val_identities=0"]
    done = command(
        str(script), str(tmp_path / "run"), *run, "trainer.max_epochs=100",
        "trainer.limit_train_batches=12", PYTHONPATH=str(ROOT / "tests"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_numbers_come_one_step_late_from_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:

    events: list[str] = []

    class Event:
        def record(self) -> None:
            events.append("record")

        def synchronize(self) -> None:
            events.append("synchronize")

    class OnGPU(torch.Tensor):
        device = torch.device("cuda")  # type: ignore[assignment]

    empty = torch.empty
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(
        torch, "empty", lambda *shape, pin_memory, **options: empty(*shape, **options)
    )
    late = LateNumbers()
    steps = [torch.tensor([float(n)]).as_subclass(OnGPU) for n in range(3)]
    first = late.exchange(steps[0], "step 0")
    assert first is None
    second = late.exchange(steps[1], "step 1")
    assert second is not None
    assert (second.values, second.of_step) == ([0.0], "step 0")
    last = late.take()
    assert last is not None
    assert (last.values, last.of_step) == ([1.0], "step 1")
    assert late.take() is None
    assert events == ["record", "synchronize", "record", "synchronize"]
