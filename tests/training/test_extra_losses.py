"""Losses beside that of the head: a teacher's embeddings, and an old network's class centers."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from helpers.runs import compose, losses, rows
from marginface.config.instantiate import build
from marginface.inference.embedder import load_embedder
from marginface.runs.checkpoint_file import read_checkpoint
from marginface.training.config import train_problems
from marginface.training.distillation import Distillation, distillation_loss
from marginface.training.run import train
from marginface.utils.errors import InputError


@pytest.fixture(scope="module")
def old(tiny_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that has learned something."""
    folder = tmp_path_factory.mktemp("old")
    train(compose(*tiny_run, *LEARNING, "seed=1", "data.seed=2048", run_dir=folder))
    return folder / "checkpoints" / "last.ckpt"


LEARNING = ["head.scale=16", "optimizer.lr=0.1", "trainer.max_epochs=20", "augmentation=none",
            "data.batch_size=22"]  # fmt: skip
TEACHER = ["distillation=teacher", "trainer.max_steps=4"]


def last(folder: Path) -> dict[str, Any]:
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]


class TestDistillation:
    def test_the_loss_by_hand(self) -> None:
        generator = torch.Generator().manual_seed(0)
        own, theirs = (torch.randn(5, 7, generator=generator).double() for _ in range(2))
        cosine = sum(1 - _cosine(a, b) for a, b in zip(own, theirs, strict=True)) / 5
        pairs = [
            (_cosine(own[i], own[j]) - _cosine(theirs[i], theirs[j])) ** 2
            for i in range(5) for j in range(5) if i != j
        ]  # fmt: skip
        found = distillation_loss(own, F.normalize(theirs, dim=1), 2.0, 3.0)
        assert float(found) == pytest.approx(2 * cosine + 3 * sum(pairs) / len(pairs))
        # Similarities of pairs need no common space, and one image has none.
        other = F.normalize(torch.randn(5, 3, generator=generator), dim=1)
        assert distillation_loss(own.float(), other, 0.0, 1.0) > 0
        assert distillation_loss(own[:1].float(), other[:1], 0.0, 1.0) == 0

    def test_it_is_not_computed_in_16_bits(self, old: Path) -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (6, 3, 32, 32), generator=generator, dtype=torch.uint8)
        loss = Distillation(str(old))
        loss._teacher = load_embedder(old)
        near = loss._teacher(images) + 0.02 * torch.randn(6, 512, generator=generator)
        labels = torch.zeros(6, dtype=torch.long)
        exact = loss(images, near, labels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(loss(images, near, labels), exact)

    def test_its_gradient(self) -> None:
        generator = torch.Generator().manual_seed(1)
        own = torch.randn(4, 5, generator=generator).double().requires_grad_()
        theirs = F.normalize(torch.randn(4, 5, generator=generator).double(), dim=1)
        assert torch.autograd.gradcheck(lambda e: distillation_loss(e, theirs, 1.0, 2.0), own)

    @pytest.mark.parametrize(
        "precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.long)]
    )
    def test_a_student_learns_the_teacher(
        self, tiny_run: list[str], old: Path, tmp_path: Path, precision: str
    ) -> None:
        settings = ["distillation=teacher", f"distillation.teacher={old}", "seed=5",
                    "data.seed=2048", "distillation.margin_weight=0",
                    f"distillation.precision={precision}"]  # fmt: skip
        train(compose(*tiny_run, *LEARNING, *settings, run_dir=tmp_path))
        values = [float(row["train/distillation_loss"]) for row in rows(tmp_path)]
        assert values[-1] < values[0] / 5
        assert values == [float(row["train/loss"]) for row in rows(tmp_path)]
        faces = torch.from_numpy(
            np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), np.uint8)
        )
        student = load_embedder(tmp_path / "checkpoints" / "last.ckpt")
        teacher = load_embedder(old)
        assert F.cosine_similarity(student(faces), teacher(faces)).mean() > 0.5

    def test_the_parts_add_up(self, tiny_run: list[str], old: Path, tmp_path: Path) -> None:
        settings = [*TEACHER, f"distillation.teacher={old}", "distillation.margin_weight=0.5"]
        train(compose(*tiny_run, *settings, run_dir=tmp_path))
        for row in rows(tmp_path):
            margin, part = float(row["train/margin_loss"]), float(row["train/distillation_loss"])
            assert float(row["train/loss"]) == pytest.approx(0.5 * margin + part, rel=1e-5)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (["backbone.embedding_size=64"], "embeddings of 512 numbers and the student 64"),
            (["backbone.image_size=48"], "images of 32 pixels, and this run has 48"),
        ],
    )
    def test_what_does_not_fit(
        self, tiny_run: list[str], old: Path, tmp_path: Path, changes: list[str], words: str
    ) -> None:
        settings = [*TEACHER, f"distillation.teacher={old}", *changes]
        with pytest.raises(InputError, match=words):
            train(compose(*tiny_run, *settings, run_dir=tmp_path))

    def test_other_sizes_by_pairs_alone(
        self, tiny_run: list[str], old: Path, tmp_path: Path
    ) -> None:
        settings = [*TEACHER, f"distillation.teacher={old}", "backbone.embedding_size=64",
                    "distillation.embedding_weight=0"]  # fmt: skip
        result = train(compose(*tiny_run, *settings, run_dir=tmp_path))
        assert math.isfinite(result["train/distillation_loss"])

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ("distillation.pairs_weight=-1", "must not be negative"),
            ("distillation.teacher=none.ckpt", "none.ckpt: there is no such file"),
            ("distillation.precision=half", "distillation.precision"),
        ],
    )
    def test_mistakes(self, override: str, words: str) -> None:
        settings = ["distillation=teacher", "distillation.teacher=.", override]
        assert words in "\n".join(train_problems(compose(*settings)))


class TestCompatibility:
    def test_new_probes_are_found_in_an_old_gallery(
        self, tiny_run: list[str], old: Path, tmp_path: Path
    ) -> None:
        """With the influence loss the same faces agree across networks, without it by chance."""
        faces = build(compose(*tiny_run, "data.seed=2048")["data"]).train_set
        before = F.normalize(load_embedder(old).embed(faces), dim=1)
        agreement = {}
        for name, settings in {
            "with": [f"++finetune.compatible_with={old}"],
            "without": [],
        }.items():
            run = [*LEARNING, "seed=7", "data.seed=2048", *settings]
            train(compose(*tiny_run, *run, run_dir=tmp_path / name))
            new = load_embedder(tmp_path / name / "checkpoints" / "last.ckpt")
            after = F.normalize(new.embed(faces), dim=1)
            same = torch.from_numpy(faces.labels[:, None] == faces.labels[None])
            cosines = after @ before.T
            agreement[name] = float(cosines[same].mean() - cosines[~same].mean())
        assert agreement["with"] > 0.5
        assert abs(agreement["without"]) < 0.1

    def test_means_are_kept_for_a_resumed_run(
        self, tiny_run: list[str], old: Path, tmp_path: Path
    ) -> None:
        settings = [f"++finetune.compatible_with={old}", "callbacks.checkpoint."
                    "every_n_train_steps=2"]  # fmt: skip
        train(compose(*tiny_run, *settings, "trainer.max_steps=5", run_dir=tmp_path / "whole"))
        train(compose(*tiny_run, *settings, "trainer.max_steps=3", run_dir=tmp_path / "parts"))
        kept = tmp_path / "parts" / "compatible_centers.safetensors"
        written = kept.stat().st_mtime_ns
        train(compose(*tiny_run, *settings, "trainer.max_steps=5", run_dir=tmp_path / "parts"))
        assert kept.stat().st_mtime_ns == written
        assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
        whole, parts = last(tmp_path / "whole"), last(tmp_path / "parts")
        assert all(torch.equal(value, parts[name]) for name, value in whole.items())

    def test_means_of_another_start_are_not_taken(
        self, tiny_run: list[str], old: Path, tmp_path: Path
    ) -> None:
        """A folder that a run left before its first checkpoint."""
        wrong = {"centers": torch.zeros(11, 512)}
        save_file(wrong, tmp_path / "compatible_centers.safetensors")
        settings = [f"++finetune.compatible_with={old}", "trainer.max_steps=1"]
        train(compose(*tiny_run, *settings, run_dir=tmp_path))
        found = load_file(tmp_path / "compatible_centers.safetensors")["centers"]
        assert torch.allclose(found.norm(dim=1), torch.ones(11), atol=1e-5)

    def test_damaged_means_are_named(self, tiny_run: list[str], old: Path, tmp_path: Path) -> None:
        settings = [f"++finetune.compatible_with={old}"]
        train(compose(*tiny_run, *settings, "trainer.max_steps=1", run_dir=tmp_path))
        (tmp_path / "compatible_centers.safetensors").write_bytes(b"damaged")
        with pytest.raises(InputError, match="compatible_centers.safetensors is damaged"):
            train(compose(*tiny_run, *settings, "trainer.max_steps=2", run_dir=tmp_path))

    def test_the_centers_of_the_old_run_itself(
        self, tiny_run: list[str], old: Path, tmp_path: Path
    ) -> None:
        settings = [f"++finetune.compatible_with={old}", f"++finetune.compatible_centers={old}"]
        train(compose(*tiny_run, *settings, "trainer.max_steps=1", run_dir=tmp_path))
        assert not (tmp_path / "compatible_centers.safetensors").exists()

    def test_mistakes(self, tiny_run: list[str], old: Path, tmp_path: Path) -> None:
        settings = [f"++finetune.compatible_with={old}", "trainer.max_steps=1"]
        with pytest.raises(InputError, match="embeddings of 512 numbers and the new network 64"):
            train(compose(*tiny_run, *settings, "backbone.embedding_size=64",
                          run_dir=tmp_path / "a"))  # fmt: skip
        with pytest.raises(InputError, match="compatible_weight must be above 0"):
            train(compose(*tiny_run, *settings, "++finetune.compatible_weight=0",
                          run_dir=tmp_path / "b"))  # fmt: skip
        config = compose("++finetune.compatible_weight=2")
        assert "belong to finetune.compatible_with" in "\n".join(train_problems(config))
        config = compose("++finetune.compatible_with=nowhere.ckpt")
        assert "nowhere.ckpt: there is no such" in "\n".join(train_problems(config))


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum() / a.square().sum().sqrt() / b.square().sum().sqrt())
