"""Heads that begin at centers of a file, or at the means of their classes."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from helpers.runs import compose
from marginface.config.instantiate import build
from marginface.inference.embedder import load_embedder
from marginface.runs.checkpoint_file import read_centers, read_checkpoint
from marginface.training.config import train_problems
from marginface.training.run import train
from marginface.utils.errors import InputError

# No batch statistics, and a rate at which nothing moves: what training began at can be read.
STILL = ["backbone=vit_tiny", "optimizer.lr=1e-30", "trainer.max_steps=1", "data.batch_size=6"]
CLASSES = 11


def centers_of(run: Path) -> torch.Tensor:
    path = run / "checkpoints" / "last.ckpt"
    return read_centers(read_checkpoint(path), path)


def trained(tiny_run: list[str], folder: Path, *overrides: str) -> torch.Tensor:
    train(compose(*STILL, *tiny_run, *overrides, run_dir=folder))
    return centers_of(folder)


def test_class_means(tiny_run: list[str], tmp_path: Path) -> None:
    config = compose(*STILL, *tiny_run, "++head.weights=class_means", run_dir=tmp_path)
    train(config)
    datamodule = build(config["data"])
    faces = datamodule.train_set
    embedder = load_embedder(tmp_path / "checkpoints" / "last.ckpt")
    directions = F.normalize(embedder.embed(faces), dim=1)
    labels = torch.from_numpy(faces.labels)
    found = centers_of(tmp_path)
    random = trained(tiny_run, tmp_path / "random")
    for label in range(CLASSES):
        mean = directions[labels == label].mean(0)
        assert F.cosine_similarity(found[label], mean, dim=0) > 1 - 1e-5
        assert found[label].norm() == pytest.approx(float(random.norm(dim=1).mean()), rel=1e-4)


def test_subcenters_begin_together(tiny_run: list[str], tmp_path: Path) -> None:
    head = ["head=subcenter_arcface", "++head.weights=class_means"]
    found = trained(tiny_run, tmp_path, *head)
    per_class = len(found) // CLASSES
    assert per_class > 1
    assert torch.allclose(found[0], found[per_class - 1])


def test_centers_of_an_earlier_run(
    tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = trained(tiny_run, tmp_path / "old", "seed=1", "data.seed=2048")
    new = trained(tiny_run, tmp_path / "new", f"++head.weights={tmp_path / 'old'}")
    assert torch.equal(old, new)
    printed = capsys.readouterr().out
    assert "head: 11 of 11 classes begin at centers of" in printed
    assert printed.count("expected of an untrained head") == 1, "not of trained centers"


def test_people_who_come_and_go(tiny_run: list[str], tmp_path: Path) -> None:
    old = torch.randn(5, 512, generator=torch.Generator().manual_seed(0))
    torch.save({"weight": old}, tmp_path / "old.pth")
    (tmp_path / "map.csv").write_text("old,new\n4,0\n1,10\n")
    settings = [f"++head.weights={tmp_path}/old.pth", f"++head.classes={tmp_path}/map.csv"]
    found = trained(tiny_run, tmp_path / "run", *settings)
    random = trained(tiny_run, tmp_path / "random")
    assert torch.allclose(found[[0, 10]], old[[4, 1]])
    assert torch.allclose(found[1:10], random[1:10])


def test_all_centers_of_a_class_go_with_it(tiny_run: list[str], tmp_path: Path) -> None:
    head = "head=subcenter_arcface"
    old = trained(tiny_run, tmp_path / "old", head, "seed=1", "data.seed=2048")
    (tmp_path / "map.csv").write_text("old,new\n3,7\n")
    settings = [f"++head.weights={tmp_path}/old", f"++head.classes={tmp_path}/map.csv"]
    new = trained(tiny_run, tmp_path / "new", head, *settings)
    per_class = len(old) // CLASSES
    assert torch.equal(new.view(CLASSES, per_class, -1)[7], old.view(CLASSES, per_class, -1)[3])
    with pytest.raises(InputError, match=f"{per_class} centers a class and this head 1"):
        trained(tiny_run, tmp_path / "one", *settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("old,new\n5,0\n", "line 2: old must be a class from 0 to 4, got '5'"),
        ("old,new\n0,11\n", "new must be a class from 0 to 10, got '11'"),
        ("old,new\n0,1\n2,1\n", "class 1 of this run is named twice"),
        ("a,b\n0,1\n", "must name the columns old,new"),
        (None, "has centers of 5 classes and the data 11; head.classes=<csv>"),
    ],
)
def test_maps_that_do_not_fit(
    tiny_run: list[str], tmp_path: Path, text: str | None, message: str
) -> None:
    torch.save({"weight": torch.zeros(5, 512)}, tmp_path / "old.pth")
    settings = [f"++head.weights={tmp_path}/old.pth"]
    if text is not None:
        (tmp_path / "map.csv").write_text(text)
        settings.append(f"++head.classes={tmp_path}/map.csv")
    with pytest.raises(InputError, match=message):
        train(compose(*STILL, *tiny_run, *settings, run_dir=tmp_path / "run"))


def test_classes_need_a_file() -> None:
    problems = train_problems(compose("++head.classes=x.csv"))
    assert problems == ["head.classes says which class of the file head.weights is which; give one"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainer", [pytest.param("ddp_gloo", marks=pytest.mark.long), "class_parallel"]
)
def test_means_over_two_processes(
    tiny_run: list[str],
    tmp_path: Path,
    command: Callable[..., "subprocess.CompletedProcess[str]"],
    trainer: str,
) -> None:
    one = trained(tiny_run, tmp_path / "one", "++head.weights=class_means")
    rest = [override for override in tiny_run if override != "trainer=cpu"]
    done = command(
        "train.py", *STILL, *rest, f"trainer={trainer}", "trainer.devices=2",
        "trainer.accelerator=cpu", "head.weights=class_means", f"hydra.run.dir={tmp_path / 'two'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert torch.allclose(centers_of(tmp_path / "two"), one, atol=1e-6)
