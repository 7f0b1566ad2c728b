"""Copies to a GPU that begin ahead: who waits for whom, and that nothing is overwritten."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor

from helpers.pictures import make_folder
from marginface.data import FolderDataset
from marginface.data import device_copies as module
from marginface.data.datamodule import FaceDataModule
from marginface.data.device_copies import DeviceCopies
from marginface.data.loader import AHEAD, batch_loader, make_loader
from marginface.data.sampling import EpochOrder, GlobalBatchSampler


class OnGPU(torch.Tensor):
    """What is on a GPU in a test without one."""

    is_cuda = True


def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have streams only write down what they are told."""
    told: list[str] = []

    class Stream:
        def __init__(self, name: object) -> None:
            self.name = str(name)

        def wait_event(self, event: str) -> None:
            told.append(f"{self.name} waits for {event}")

        def record_event(self) -> str:
            return f"copy {told.count('copy')}"

    @contextmanager
    def stream(on: Stream) -> Iterator[None]:
        told.append(f"on {on.name}")
        yield
        told.append("as before")

    def queue_to(device: torch.device, images: Tensor) -> Tensor:
        told.append("copy")
        return images.as_subclass(OnGPU)

    main = Stream("the main stream")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("the stream of copies"))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: told.append(f"device {device}"))
    monkeypatch.setattr(module, "queue_to", queue_to)
    monkeypatch.setattr(
        OnGPU, "record_stream", lambda self, used_by: told.append(f"used by {used_by.name}")
    )
    # Page-locked memory needs a GPU, too.
    empty = torch.empty
    monkeypatch.setattr(
        torch, "empty", lambda *shape, pin_memory=False, **options: empty(*shape, **options)
    )
    return told


def test_who_waits_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    told = without_a_gpu(monkeypatch)
    images, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1])
    batches = iter([(images, labels, labels)])
    (batch,) = DeviceCopies(torch.device("cuda", 1)).ahead(batches, 1)
    assert isinstance(batch[0], OnGPU)
    assert batch[1] is labels, "labels are looked at on the host"
    assert told == [
        "device cuda:1",
        "on the stream of copies",
        "copy",
        "as before",
        "the main stream waits for copy 1",
        "used by the main stream",
    ]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_copies_begin_before_batches_are_asked_for(
    num_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = without_a_gpu(monkeypatch)
    faces = FolderDataset(make_folder(tmp_path / "faces", [4, 4, 4]))
    copies = DeviceCopies(torch.device("cuda", 0))
    sampler = GlobalBatchSampler(EpochOrder(12), 2, seed=0)
    loader = batch_loader(faces, sampler, 2, num_workers=num_workers, copies=copies)
    batches = iter(loader)
    first = next(batches)
    end = time.monotonic() + 20
    while told.count("copy") < 1 + AHEAD and time.monotonic() < end:
        time.sleep(0.01)
    assert told.count("copy") >= 1 + AHEAD
    found = [first, *batches]
    assert told.count("copy") == 6
    expected = list(make_loader(faces, batch_size=2))
    assert len(found) == len(expected) == 6
    for ours, theirs in zip(found, expected, strict=True):
        assert isinstance(ours[0], OnGPU)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_training_batches_come_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = without_a_gpu(monkeypatch)
    faces = FolderDataset(make_folder(tmp_path / "faces", [4, 4]))
    data = FaceDataModule(faces, name="faces", val_identities=0, batch_size=2, num_workers=0)
    trainer = L.Trainer(accelerator="cpu", max_steps=1, logger=False)
    trainer.training, data.trainer = True, trainer
    monkeypatch.setattr(trainer.strategy, "_root_device", torch.device("cuda", 0))
    batches = iter(data.train_dataloader())
    images, _, _ = next(batches)
    assert isinstance(images, OnGPU)
    assert "the main stream waits for copy 1" in told
    del batches  # ends the thread


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_batches_arrive_whole_while_the_gpu_works() -> None:
    device = torch.device("cuda", 0)
    generator = torch.Generator().manual_seed(0)
    sent = [
        torch.randint(0, 256, (256, 3, 112, 112), generator=generator, dtype=torch.uint8)
        for _ in range(12)
    ]
    rows = torch.zeros(256, dtype=torch.int64)
    work = torch.randn(4096, 4096, device=device)
    found = []
    copies = DeviceCopies(device).ahead(((images, rows, rows) for images in sent), 2)
    for images, _, _ in copies:
        for _ in range(4):
            work = work @ work * 1e-3
        found.append(images.long().sum())
        del images  # its memory may be used for a later batch
    assert [int(total) for total in found] == [int(images.long().sum()) for images in sent]
