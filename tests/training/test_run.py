"""Whole runs in this process: what they write, and that they learn."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers.runs import compose, losses, rows
from marginface.data import SyntheticFaces
from marginface.data.image_dataset import Batch
from marginface.data.packing import pack
from marginface.data.sampling import ShuffledOrder
from marginface.training.module import FaceRecognizer
from marginface.training.run import train
from marginface.utils.errors import InputError, NonFiniteLossError


def test_a_run_writes_what_the_design_names(tiny_run: list[str], tmp_path: Path) -> None:
    result = train(
        compose(*tiny_run, "trainer.max_steps=14", "validate_untrained=true", run_dir=tmp_path)
    )
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert {"train/loss", "val/heldout/accuracy", "untrained/heldout/accuracy"} <= result.keys()
    assert all(0 <= v <= 1 for k, v in result.items() if k.endswith(("accuracy", "auc", "eer")))
    assert list(losses(tmp_path)) == list(range(14))
    table = rows(tmp_path)
    assert [bool(r["val/heldout/accuracy"]) for r in table] == [s in (10, 13) for s in range(14)]
    assert float(table[13]["val/heldout/accuracy"]) == result["val/heldout/accuracy"]
    assert float(table[13]["train/loss"]) == result["train/loss"]
    speed = float(table[5]["speed/images_per_second"]), float(table[5]["speed/data_wait_share"])
    assert speed[0] > 0
    assert 0 <= speed[1] <= 1
    info = json.loads((tmp_path / "runinfo.json").read_text())
    assert info["world_size"] == info["devices"] == 1
    assert info["precision"] == "32-true"
    assert info["data"]["train"]["images"] == 66
    assert info["seed"] == 2048
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["head"]["name"] == "x2softmax"
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()
    page = (tmp_path / "report.html").read_text()
    assert "heldout: ROC" in page
    assert "Done at step 14 of 14" in page


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_checkpoints_hold_tensors_and_plain_python(
    tiny_run: list[str], tmp_path: Path, name: str
) -> None:
    train(
        compose(*tiny_run, "trainer.max_steps=2", "trainer.val_check_interval=1", run_dir=tmp_path)
    )
    content = torch.load(tmp_path / "checkpoints" / name, weights_only=True)
    assert content["global_step"] > 0
    assert content["marginface"]["description"]["config"]["head"]["k"] == 0.65
    assert "head.centers.weight" in content["state_dict"]


def test_every_epoch_has_an_order_of_its_own(
    tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    step = FaceRecognizer.training_step

    def recording(self: FaceRecognizer, batch: Batch, batch_idx: int) -> torch.Tensor:
        seen.append(batch[2].tolist())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(FaceRecognizer, "training_step", recording)
    train(compose(*tiny_run, "trainer.max_epochs=3", run_dir=tmp_path))
    orders = [ShuffledOrder(66)(2048, epoch) for epoch in range(3)]
    assert seen == [batch.tolist() for order in orders for batch in order.reshape(11, 6)]


def test_it_learns(tiny_run: list[str], tmp_path: Path) -> None:
    settings = ["trainer.max_epochs=12", "augmentation=none", "head.scale=16", "optimizer.lr=0.05"]
    settings.append("seed=2")  # the last batch is six images: not every seed has learned them all
    result = train(compose(*tiny_run, *settings, run_dir=tmp_path))
    first, last = losses(tmp_path)[0], result["train/loss"]
    assert last < 0.5 * first
    assert result["train/accuracy"] > 0.8


def test_the_first_loss_is_the_expected_one(
    tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(compose(*tiny_run, "trainer.max_steps=1", run_dir=tmp_path))
    printed = capsys.readouterr()
    assert "expected of an untrained head" in printed.out
    assert "more than 30%" not in printed.err


def test_accumulation_is_the_same_training(tiny_run: list[str], tmp_path: Path) -> None:
    vit = [*tiny_run, "backbone=vit_tiny", "backbone.image_size=32", "trainer.max_steps=6"]
    vit += ["optimizer=adamw", "scheduler=constant"]
    train(compose(*vit, run_dir=tmp_path / "whole"))
    parts = [*vit, "trainer.accumulate_grad_batches=3"]
    train(compose(*parts, run_dir=tmp_path / "parts"))
    whole, split = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert list(whole) == list(split) == list(range(6))
    assert list(split.values()) == pytest.approx(list(whole.values()), rel=1e-4)


def test_precision_leaves_head_and_validation_in_float32(
    tiny_run: list[str], tmp_path: Path
) -> None:
    settings = ["trainer.max_steps=3", "optimizer.lr=0.01"]
    settings.append("validate_untrained=true")
    results = [
        train(compose(*tiny_run, *settings, f"trainer.precision={name}", run_dir=tmp_path / name))
        for name in ("bf16-mixed", "32-true")
    ]
    reduced, full = losses(tmp_path / "bf16-mixed"), losses(tmp_path / "32-true")
    assert list(reduced.values()) == pytest.approx(list(full.values()), rel=0.05)
    assert reduced != full
    # The same untrained weights are verified to the last digit: validation is not reduced.
    untrained, expected = (
        {key: value for key, value in result.items() if key.startswith("untrained/")}
        for result in results
    )
    assert untrained == expected != {}


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_without_instructions_is_said(
    tiny_run: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fast: bool,
) -> None:
    monkeypatch.setattr("marginface.training.summary.has_bfloat16", lambda _: fast)
    settings = ["trainer.precision=bf16-mixed", "trainer.max_steps=1", "data.val_identities=0"]
    train(compose(*tiny_run, *settings, run_dir=tmp_path))
    assert ("many times slower here than 32-true" in capsys.readouterr().out) != fast


def test_freed_memory_is_kept_unless_unwanted(
    tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    monkeypatch.setattr("marginface.training.run.keep_freed_memory", lambda: kept.append(name))
    settings = ["trainer.max_steps=1", "data.val_identities=0"]
    for name in ("true", "false"):
        keep = f"keep_freed_memory={name}"
        train(compose(*tiny_run, *settings, keep, run_dir=tmp_path / name))
    assert kept == ["true"]


def test_a_non_finite_loss_stops_with_the_facts(tiny_run: list[str], tmp_path: Path) -> None:
    config = compose(*tiny_run, "optimizer.lr=1e30", "scheduler=constant", run_dir=tmp_path)
    with pytest.raises(
        NonFiniteLossError, match=r"at step \d+ \(lr 1e\+30, embedding norms .*labels"
    ):
        train(config)


def test_learning_rate_scaling_is_printed(
    tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["lr_base_size=12", "scheduler=constant", "trainer.max_steps=1"]
    train(compose(*tiny_run, *settings, run_dir=tmp_path))
    assert "learning rate 0.05 = optimizer.lr 0.1 x data.batch_size 6" in capsys.readouterr().out
    assert float(rows(tmp_path)[0]["train/lr"]) == pytest.approx(0.05)


def test_stopped_early_within_an_epoch_leaves_its_last_weights(
    tiny_run: list[str], tmp_path: Path
) -> None:
    stopping = ["callbacks=early_stopping", "callbacks.early_stopping.patience=1"]
    often = ["trainer.val_check_interval=4", "trainer.max_epochs=50", "optimizer.lr=1e-9"]
    train(compose(*tiny_run, *stopping, *often, "trainer.max_steps=60", run_dir=tmp_path))
    steps = len(losses(tmp_path))
    assert steps % 11, "stopped at the end of an epoch, which shows nothing"
    stored = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["global_step"] == steps
    train(compose(*tiny_run, *often, "trainer.max_steps=60", run_dir=tmp_path))  # to the end
    assert list(losses(tmp_path)) == list(range(60))


def test_what_stops_a_run_early_may_be_its_best(tiny_run: list[str], tmp_path: Path) -> None:
    """The last weights are kept when all others have seen the validation."""
    stopping = ["callbacks=early_stopping", "+callbacks.early_stopping.stopping_threshold=0"]
    often = ["trainer.val_check_interval=4", "trainer.max_epochs=2"]
    train(compose(*tiny_run, *stopping, *often, run_dir=tmp_path))
    stored = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    (best,) = [s["best"] for s in stored["callbacks"].values() if "best" in s]
    assert stored["global_step"] == 4
    assert best == float(rows(tmp_path)[3]["val/mean/accuracy"])


def test_validation_waits_for_the_end_of_a_step(
    tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that what is kept as best, and what an early stop leaves, can be resumed from."""
    stopping = ["callbacks=early_stopping", "+callbacks.early_stopping.stopping_threshold=0"]
    parts = ["trainer.accumulate_grad_batches=2", "trainer.limit_train_batches=10"]
    often = ["trainer.val_check_interval=3", "trainer.max_epochs=2"]
    train(compose(*tiny_run, *stopping, *parts, *often, run_dir=tmp_path))
    assert "validation every 4 micro-batches instead of 3" in capsys.readouterr().out
    for name in ("last.ckpt", "best.ckpt"):
        stored = torch.load(tmp_path / "checkpoints" / name, weights_only=True)
        batches = stored["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"]
        assert (stored["global_step"], batches) == (2, 4)
    by_the_clock = "trainer.val_check_interval=00:00:00:01"
    with pytest.raises(
        InputError, match="val_check_interval is a time, .* step of 2 micro-batches"
    ):
        train(compose(*tiny_run, *parts, by_the_clock, run_dir=tmp_path / "clock"))


def test_what_ends_a_run_within_a_step_waits_for_its_end(
    tiny_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As trainer.max_time may want to: nothing could be resumed from that moment."""
    before = FaceRecognizer.training_step

    def ending(self: FaceRecognizer, batch: Any, batch_idx: int) -> Any:
        self.trainer.should_stop |= batch_idx == 4
        return before(self, batch, batch_idx)

    monkeypatch.setattr(FaceRecognizer, "training_step", ending)
    parts = ["trainer.accumulate_grad_batches=2", "trainer.limit_train_batches=10"]
    train(compose(*tiny_run, *parts, "trainer.max_epochs=2", run_dir=tmp_path))
    for name in ("last.ckpt", "best.ckpt"):
        stored = torch.load(tmp_path / "checkpoints" / name, weights_only=True)
        batches = stored["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"]
        assert (stored["global_step"], batches) == (3, 6)


def test_early_stopping_and_no_callbacks(tiny_run: list[str], tmp_path: Path) -> None:
    short = [*tiny_run[:-4], *tiny_run[-3:], "trainer.max_steps=2"]  # without callbacks.progress
    train(compose(*short, "callbacks=none", run_dir=tmp_path / "none"))
    assert not (tmp_path / "none" / "checkpoints").exists()
    stopping = [*tiny_run, "callbacks=early_stopping", "callbacks.early_stopping.patience=1"]
    train(compose(*stopping, "optimizer.lr=1e-9", "trainer.max_epochs=20", run_dir=tmp_path / "es"))
    assert len(losses(tmp_path / "es")) < 20 * 11


def test_fine_tuning_starts_from_weights(tiny_run: list[str], tmp_path: Path) -> None:
    train(compose(*tiny_run, "trainer.max_steps=3", run_dir=tmp_path / "first"))
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    frozen = ["optimizer.lr=1e-30", "trainer.max_steps=1", f"backbone.weights={last}"]
    train(compose(*tiny_run, *frozen, "head=arcface", run_dir=tmp_path / "second"))
    before = torch.load(last, weights_only=True)["state_dict"]
    path = tmp_path / "second" / "checkpoints" / "last.ckpt"
    after = torch.load(path, weights_only=True)["state_dict"]
    assert torch.equal(before["backbone.fc.weight"], after["backbone.fc.weight"])


def _changed(overrides: list[str], **changes: Any) -> list[str]:
    return overrides + [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]


def test_without_verification_sets(
    tiny_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(
        compose(*_changed(tiny_run, data__val_identities=0, trainer__max_steps=2), run_dir=tmp_path)
    )
    assert not [key for key in result if key.startswith("val/")]
    assert "nothing was verified" in capsys.readouterr().out


def test_data_that_cannot_be_trained_on(tiny_run: list[str], tmp_path: Path) -> None:
    for changes, message in (
        ({"data__dataset__identities": 1, "data__val_identities": 0}, "num_classes=1"),
        ({"data__batch_size": 67}, "between 1 and the 66 training images"),
        ({"data__batch_size": 8, "trainer__accumulate_grad_batches": 3}, "use 6 or 9"),
        ({"data__val_identities": 15}, "of 16 identities leaves fewer than 2"),
        ({"data__val_identities": -1}, "data.val_identities: got -1"),
        ({"optimizer__lr": -1}, "optimizer: Invalid learning rate: -1"),
        ({"trainer__strategy": "dpp"}, "trainer.strategy=dpp: "),
        ({"data__num_workers": -1}, "data.num_workers: got -1"),
        (
            {"trainer__accumulate_grad_batches": 2, "trainer__limit_train_batches": 3},
            "whole number",
        ),
    ):
        with pytest.raises(InputError, match=message):
            train(compose(*_changed(tiny_run, **changes), run_dir=tmp_path))


def test_faulty_images_are_left_out_and_counted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Training continues without them; the default stops at the first one and names it."""
    faces = SyntheticFaces(tmp_path / "cache", identities=6, images_per_identity=6, image_size=32)
    pack(faces, tmp_path / "faces", "folder")
    people = sorted((tmp_path / "faces").iterdir())
    for person in people[:2]:
        path = sorted(person.iterdir())[0]
        path.write_bytes(path.read_bytes()[:400])
    settings = [
        *("trainer=cpu", "data=folder", f"data.root={tmp_path / 'faces'}", "logger=csv"),
        *("backbone.image_size=32", "data.val_identities=0", "data.batch_size=6"),
        *("data.num_workers=1", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"),
        *("callbacks.progress=null", "validate_untrained=false"),
    ]
    with pytest.raises(InputError, match=r"0000000/00000000.jpg: not a decodable image"):
        train(compose(*settings, run_dir=tmp_path / "stops"))
    capfd.readouterr()
    train(compose(*settings, "data.dataset.faulty=skip", run_dir=tmp_path / "skips"))
    assert capfd.readouterr().err.count("left out:") == 2
    table = rows(tmp_path / "skips")
    assert len(table) == 6
    assert float(table[-1]["data/skipped_images"]) == 2
