"""The average of the backbone: its numbers, in validation, checkpoints and resumed runs."""

from pathlib import Path

import torch

from helpers.runs import compose, losses
from marginface.inference.embedder import load_embedder
from marginface.runs.checkpoint_file import read_checkpoint
from marginface.training.config import train_problems
from marginface.training.run import train

DECAY = 0.7
EMA = ["averaging=ema", f"averaging.decay={DECAY}", "optimizer.lr=0.05"]


def last(folder: Path) -> dict:
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")


def test_the_numbers(tiny_run: list[str], tmp_path: Path) -> None:
    """Against the mean computed from a run that writes a checkpoint after every step."""
    weights = []
    for steps in (1, 2, 3, 4):
        plain = tmp_path / f"plain{steps}"
        train(compose(*tiny_run, EMA[2], f"trainer.max_steps={steps}", run_dir=plain))
        weights.append(last(plain)["state_dict"]["backbone.fc.weight"])
    train(compose(*tiny_run, *EMA, "trainer.max_steps=4", run_dir=tmp_path / "averaged"))
    kept = last(tmp_path / "averaged")
    wanted = weights[0]  # the first update takes the weights over
    for value in weights[1:]:
        wanted = DECAY * wanted + (1 - DECAY) * value
    assert torch.allclose(kept["state_dict"]["backbone.fc.weight"], wanted, atol=1e-7)
    trained = kept["current_model_state"]["backbone.fc.weight"]
    assert torch.equal(trained, weights[-1]), "what is trained is not changed by its average"
    assert not any(name.startswith("head.") for name in kept["current_model_state"])
    # What is verified and what is opened is the average.
    network = load_embedder(tmp_path / "averaged" / "checkpoints" / "last.ckpt").networks[0]
    assert torch.equal(network.fc.weight, kept["state_dict"]["backbone.fc.weight"])


def test_validation_sees_the_average(tiny_run: list[str], tmp_path: Path) -> None:
    """With an average that hardly moves, a run verifies what it began with."""
    first = train(compose(*tiny_run, "optimizer.lr=1e-30", "trainer.max_steps=1",
                          run_dir=tmp_path / "first"))  # fmt: skip
    base = tmp_path / "first" / "checkpoints" / "last.ckpt"
    settings = [f"backbone.weights={base}", "averaging=ema", "averaging.start_step=100",
                "optimizer.lr=0.5", "trainer.max_steps=4"]  # fmt: skip
    found = train(compose(*tiny_run, *settings, run_dir=tmp_path / "still"))
    assert found["val/heldout/auc"] == first["val/heldout/auc"]
    moved = train(compose(*tiny_run, settings[0], *settings[3:], run_dir=tmp_path / "moved"))
    assert moved["val/heldout/auc"] != first["val/heldout/auc"]


def test_a_resumed_run_is_the_same(tiny_run: list[str], tmp_path: Path) -> None:
    settings = [*tiny_run, *EMA, "callbacks.checkpoint.every_n_train_steps=2"]
    train(compose(*settings, "trainer.max_steps=6", run_dir=tmp_path / "whole"))
    train(compose(*settings, "trainer.max_steps=3", run_dir=tmp_path / "parts"))
    train(compose(*settings, "trainer.max_steps=6", run_dir=tmp_path / "parts"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    whole, parts = last(tmp_path / "whole"), last(tmp_path / "parts")
    for part in ("state_dict", "current_model_state"):
        assert whole[part].keys() == parts[part].keys()
        for name, value in whole[part].items():
            assert torch.equal(value, parts[part][name]), name


def test_mistakes() -> None:
    assert "averaging.decay must be in (0, 1)" in "\n".join(
        train_problems(compose("averaging=ema", "averaging.decay=1"))
    )
