"""A run resumes exactly where it stopped, and only if it is the same run."""

from pathlib import Path

import pytest
import torch

from helpers.runs import compose, kill_after, losses, rows
from marginface.training.resume import check_same_run
from marginface.training.run import train
from marginface.utils.errors import InputError, MissingInputError

STEPS = 26  # two epochs of 11 and a bit


@pytest.fixture(scope="module")
def resumable(tiny_run: list[str]) -> list[str]:
    every = "callbacks.checkpoint.every_n_train_steps=4"
    return [*tiny_run, f"trainer.max_steps={STEPS}", every, "data.num_workers=1"]


@pytest.fixture(scope="module")
def uninterrupted(
    resumable: list[str], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, str]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train(compose(*resumable, run_dir=folder))
    return rows(folder)


def numbers(table: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows without what the clock decides."""
    return [{k: v for k, v in row.items() if not k.startswith("speed/")} for row in table]


@pytest.mark.parametrize("killed_at", [7, pytest.param(18, marks=pytest.mark.slow)])
def test_killed_runs_go_on_bit_equal(
    resumable: list[str], uninterrupted: list[dict[str, str]], tmp_path: Path, killed_at: int
) -> None:
    kill_after(killed_at, resumable, tmp_path)
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert len(rows(tmp_path)) < STEPS, "killed too late to show anything"
    train(compose(*resumable, run_dir=tmp_path))
    assert numbers(rows(tmp_path)) == numbers(uninterrupted)


@pytest.mark.slow
def test_a_validation_after_the_checkpoint_is_made_up_for(
    resumable: list[str], tmp_path: Path
) -> None:
    """An epoch's checkpoint is written before its validation, and knows nothing of it."""
    settings = [*resumable, "callbacks.checkpoint.every_n_train_steps=1000", "optimizer.lr=1e-9"]
    train(compose(*settings, run_dir=tmp_path / "whole"))
    kill_after(15, settings, tmp_path / "parts")
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 11
    train(compose(*settings, run_dir=tmp_path / "parts"))
    assert numbers(rows(tmp_path / "parts")) == numbers(rows(tmp_path / "whole"))
    best = [
        torch.load(tmp_path / name / "checkpoints" / "best.ckpt", weights_only=True)["global_step"]
        for name in ("whole", "parts")
    ]
    assert best == [11, 11]


def test_resumed_at_the_end_of_an_epoch_and_of_the_next(
    resumable: list[str], tmp_path: Path
) -> None:
    settings = [s for s in resumable if not s.startswith("trainer.max_steps")]
    settings += ["scheduler=constant", "callbacks.checkpoint.every_n_train_steps=1000"]
    train(compose(*settings, "trainer.max_steps=26", run_dir=tmp_path / "whole"))
    for steps in (11, 22, 26):
        train(compose(*settings, f"trainer.max_steps={steps}", run_dir=tmp_path / "parts"))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for epochs in (1, 2, 3):
        train(compose(*settings, f"trainer.max_epochs={epochs}", run_dir=tmp_path / "epochs"))
    assert list(losses(tmp_path / "epochs")) == list(range(33))


@pytest.mark.parametrize("sampler", ["class_balanced", "grouped"])
def test_other_orders_and_augmentation_go_on_bit_equal(
    resumable: list[str], tmp_path: Path, sampler: str
) -> None:
    order = [f"data.sampler={sampler}", "data.images_per_class=2"]
    settings = [*resumable, *order, "augmentation=strong", "scheduler=constant"]
    train(compose(*settings, run_dir=tmp_path / "whole"))
    train(compose(*settings, "trainer.max_steps=15", run_dir=tmp_path / "parts"))
    train(compose(*settings, "data.num_workers=0", run_dir=tmp_path / "parts"))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


@pytest.mark.parametrize("stopped_at", [1, 11, 15, 22])
def test_stopped_runs_go_on_bit_equal(
    resumable: list[str], uninterrupted: list[dict[str, str]], tmp_path: Path, stopped_at: int
) -> None:
    """Inside an epoch and at its end; with the schedule of the whole run."""
    constant = [*resumable, "scheduler=constant"]
    train(compose(*constant, f"trainer.max_steps={stopped_at}", run_dir=tmp_path / "parts"))
    train(compose(*constant, run_dir=tmp_path / "parts"))
    train(compose(*constant, run_dir=tmp_path / "whole"))
    whole = losses(tmp_path / "whole")
    assert losses(tmp_path / "parts") == whole
    assert len(whole) == STEPS


@pytest.mark.parametrize(
    "head", [["head=curricularface"], ["head=elasticface_arc", "head.plus=true"], ["head=uniface"]]
)
def test_the_state_of_a_head_goes_on(resumable: list[str], tmp_path: Path, head: list[str]) -> None:
    schedule = ["scheduler=constant", "trainer.accumulate_grad_batches=2"]
    train(compose(*resumable, *head, *schedule, "trainer.max_steps=13", run_dir=tmp_path / "whole"))
    for steps in (5, 13):
        limit = f"trainer.max_steps={steps}"
        train(compose(*resumable, *head, *schedule, limit, run_dir=tmp_path / "parts"))
    parts, whole = (
        [{k: v for k, v in row.items() if k.startswith(("train/", "head/"))} for row in table]
        for table in (rows(tmp_path / "parts"), rows(tmp_path / "whole"))
    )
    assert parts == whole
    if head == ["head=curricularface"]:
        assert len({row["head/t"] for row in whole}) == 13


def test_limited_epochs_go_on(resumable: list[str], tmp_path: Path) -> None:
    limited = [*resumable, "scheduler=constant", "trainer.limit_train_batches=5"]
    train(compose(*limited, "trainer.max_steps=13", run_dir=tmp_path / "parts"))
    train(compose(*limited, run_dir=tmp_path / "parts"))
    train(compose(*limited, run_dir=tmp_path / "whole"))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


@pytest.mark.slow
def test_other_accumulation_goes_on(resumable: list[str], tmp_path: Path) -> None:
    vit = [*resumable, "backbone=vit_tiny", "backbone.image_size=32", "optimizer=adamw"]
    vit += ["scheduler=constant"]
    train(compose(*vit, "trainer.max_steps=15", run_dir=tmp_path / "parts"))
    train(compose(*vit, "trainer.accumulate_grad_batches=2", run_dir=tmp_path / "parts"))
    train(compose(*vit, run_dir=tmp_path / "whole"))
    parts, whole = losses(tmp_path / "parts"), losses(tmp_path / "whole")
    assert list(parts) == list(whole)
    assert list(parts.values()) == pytest.approx(list(whole.values()), rel=1e-4)


def test_a_finished_run_stays_finished(resumable: list[str], tmp_path: Path) -> None:
    short = [*resumable, "trainer.max_steps=3"]
    first = train(compose(*short, run_dir=tmp_path))
    before = rows(tmp_path)
    assert train(compose(*short, run_dir=tmp_path)) == first
    assert rows(tmp_path) == before


def test_another_run_is_refused(resumable: list[str], tmp_path: Path) -> None:
    short = [*resumable, "trainer.max_steps=2"]
    train(compose(*short, run_dir=tmp_path))
    for override, message in (
        ("head=arcface", "head.name: x2softmax there, arcface now"),
        ("head.k=0.6", "head.k: 0.65 there, 0.6 now"),
        ("seed=1", "seed: 2048 there, 1 now"),
        ("data.dataset.seed=5", "data.dataset.seed: 0 there, 5 now"),
        ("optimizer.lr=0.2", "optimizer.lr: 0.1 there, 0.2 now"),
        ("backbone=iresnet18", "backbone.name: miniresnet8_half there, iresnet18 now"),
    ):
        extra = ["backbone.image_size=32"] if override.startswith("backbone") else []
        with pytest.raises(InputError, match=f"belongs to another run \\(.*{message}"):
            train(compose(*short, override, *extra, run_dir=tmp_path))
        other = tmp_path / "checkpoints" / "last.ckpt"
        with pytest.raises(InputError, match="belongs to another run"):
            train(compose(*short, override, *extra, f"resume={other}", run_dir=tmp_path / "new"))
    with pytest.raises(InputError, match="resume=never would overwrite it"):
        train(compose(*short, "resume=never", run_dir=tmp_path))
    assert len(rows(tmp_path)) == 2, "a refused run changes nothing"


def test_settings_that_came_later_are_no_other_run() -> None:
    """What a run of an older version did without a setting is its default now."""

    def described(**dataset: object) -> dict[str, object]:
        return {"config": {"data": {"dataset": {"root": "x", **dataset}}}, "data": {"images": 3}}

    check_same_run(Path("a.ckpt"), described(), described(depth=1))
    with pytest.raises(InputError, match="data.dataset.depth: 1 there, 2 now"):
        check_same_run(Path("a.ckpt"), described(), described(depth=2))
    with pytest.raises(InputError, match="data.dataset.resize: absent there, True now"):
        check_same_run(Path("a.ckpt"), described(), described(resize=True))


def test_resume_takes_a_run_folder_or_a_file(resumable: list[str], tmp_path: Path) -> None:
    train(compose(*resumable, "trainer.max_steps=4", "scheduler=constant", run_dir=tmp_path / "a"))
    on = [*resumable, "trainer.max_steps=6", "scheduler=constant"]
    train(compose(*on, f"resume={tmp_path / 'a'}", run_dir=tmp_path / "b"))
    assert list(losses(tmp_path / "b")) == [4, 5]
    with pytest.raises(MissingInputError, match="no checkpoint .*absent"):
        train(compose(*on, f"resume={tmp_path / 'absent'}", run_dir=tmp_path / "c"))
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        train(compose(*on, f"resume={tmp_path / 'text.ckpt'}", run_dir=tmp_path / "c"))


def test_another_precision_of_the_classifier_is_told(
    resumable: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*resumable, "scheduler=constant", "data.val_identities=0"]
    train(compose(*settings, "trainer.max_steps=4", run_dir=tmp_path))
    capsys.readouterr()
    other = ["classifier.matmul_precision=float16", "classifier.kernel=torch"]
    train(compose(*settings, *other, "trainer.max_steps=6", run_dir=tmp_path))
    printed = capsys.readouterr().out
    assert "resuming with classifier.matmul_precision=float16, before auto" in printed
    assert "resuming with classifier.kernel=torch, before auto" in printed
    assert "classifier: plain torch (classifier.kernel=torch), products in float16" in printed
    assert len(losses(tmp_path)) == 6


def test_a_longer_run_follows_its_own_schedule_at_once(
    resumable: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A checkpoint holds the rate of the shorter one's end, which is 0."""
    settings = [*resumable, "scheduler=poly", "data.val_identities=0"]
    train(compose(*settings, "trainer.max_steps=4", run_dir=tmp_path / "parts"))
    capsys.readouterr()
    train(compose(*settings, "trainer.max_steps=7", run_dir=tmp_path / "parts"))
    assert "the learning rate is 0.0428571 from here on, not 0: " in capsys.readouterr().out
    rates = [float(row["train/lr"]) for row in rows(tmp_path / "parts")]
    expected = [0.1 * (1 - step / 4) for step in range(4)]
    expected += [0.1 * (1 - step / 7) for step in range(4, 7)]
    assert rates == pytest.approx(expected)
