"""Centers stepped in the backward pass end where optimizer.step() takes them, for every head."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from helpers.processes import run_processes
from helpers.runs import compose, losses
from helpers.small_heads import (
    MAKE_OPTIMIZER,
    MODES,
    SMALL,
    B,
    C,
    D,
    make_batch,
    make_head,
    parts_of,
)
from marginface.classifier import ClassifierOptions, fused
from marginface.heads import MarginHead
from marginface.training.optimizers import SGD, AdamW, step_in_backward
from marginface.training.run import train
from marginface.training.strategies import check_classifier
from marginface.utils.errors import InputError

# Its exact gradient also comes through the center nearest to the own one.
OTHER_GRADIENT = ("dynarcface", "exact")


def trained(
    head: MarginHead, kind: str, inside: bool, rows: int = B, **options: Any
) -> dict[str, Tensor]:
    """Everything there is after three steps."""
    head.centers.options = ClassifierOptions(**SMALL, optimizer_in_backward=inside, **options)
    optimizer = MAKE_OPTIMIZER[kind](head.parameters())
    if inside:
        head.centers.step_centers_in_backward = step_in_backward(optimizer, head.weight)
    embeddings, labels = make_batch(rows, head.weight.dtype)
    embeddings.requires_grad_()
    for step in range(3):
        optimizer.zero_grad()
        head.begin_step(step)
        head(embeddings.roll(step, 1), labels).backward()
        assert (head.weight.grad is None) == inside
        optimizer.step()
    assert embeddings.grad is not None
    state = {f"state of {k}": torch.as_tensor(v) for k, v in optimizer.state[head.weight].items()}
    return {"dembeddings": embeddings.grad, **head.state_dict(), **state}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-10, msg=key)


@pytest.mark.parametrize("case", [case for case in MODES if case != OTHER_GRADIENT])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_equals_a_step_afterwards(case: tuple[str, str], kind: str) -> None:
    assert_same(trained(make_head(*case), kind, True), trained(make_head(*case), kind, False))


@pytest.mark.parametrize("kind", MAKE_OPTIMIZER)
@pytest.mark.parametrize("name", ["x2softmax", "subcenter_arcface", "curricularface"])
def test_samples(name: str, kind: str) -> None:
    found, expected = (
        trained(make_head(name, "exact"), kind, inside, sample_rate=0.5) for inside in (True, False)
    )
    assert_same(found, expected)
    first = make_head(name, "exact").weight.detach()
    still = (expected["centers.weight"] == first).all(1)
    assert torch.equal(found["centers.weight"][still], first[still]), (
        "not sampled: not even rounded"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [B, 2 * D])
def test_other_precisions(dtype: torch.dtype, rows: int) -> None:
    found, expected = (
        trained(make_head("x2softmax", "exact", dtype), "sgd", inside, rows)["centers.weight"]
        for inside in (True, False)
    )
    assert found.dtype == dtype
    # torch and steps by rows round in another order: by a bit or two of the largest terms.
    atol = 2 * torch.finfo(dtype).eps * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=atol)


def test_the_gradient_is_never_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    step_rows = SGD.step_rows

    def spy(self: SGD, group: Any, done: int, values: Tensor, *more: Any) -> None:
        seen.append(len(values))
        step_rows(self, group, done, values, *more)

    monkeypatch.setattr(fused, "_empty_gradient", lambda *_: pytest.fail("memory for a gradient"))
    monkeypatch.setattr(SGD, "step_rows", spy)
    trained(make_head("x2softmax", "exact"), "sgd", True)
    assert sum(seen) == 3 * C
    assert max(seen) <= 2


def _sharded_steps(rank: int, world: int) -> Any:
    options = {**SMALL, "optimizer_in_backward": True}
    head = make_head("curricularface", "exact", ranks=(rank, world), options=options)
    optimizer = MAKE_OPTIMIZER["adamw"](head.parameters())
    head.centers.step_centers_in_backward = step_in_backward(optimizer, head.weight)
    rows = parts_of(world)[rank]
    embeddings, labels = make_batch()
    for step in range(3):
        optimizer.zero_grad()
        head.begin_step(step)
        head(embeddings.roll(step, 1)[rows].requires_grad_(), labels[rows]).backward()
        optimizer.step()
    moments = {key: optimizer.state[head.weight][key] for key in ("exp_avg", "exp_avg_sq")}
    return {"weight": head.weight.detach(), **moments}


def test_shards_equal_one_process(tmp_path: Path) -> None:
    parts = run_processes(3, tmp_path, _sharded_steps)
    expected = trained(make_head("curricularface", "exact"), "adamw", False)
    for key in ("weight", "exp_avg", "exp_avg_sq"):
        whole = torch.cat([part[key] for part in parts])
        same = expected["centers.weight" if key == "weight" else f"state of {key}"]
        torch.testing.assert_close(whole, same, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_process_without_classes_has_a_state_like_the_others(kind: str) -> None:
    """Or the processes that gather a checkpoint would wait for one another."""
    head = make_head("x2softmax", "exact")
    optimizer = MAKE_OPTIMIZER[kind](head.parameters())
    step_in_backward(optimizer, head.weight)()
    other = MAKE_OPTIMIZER[kind](head.parameters())
    head.weight.grad = torch.zeros_like(head.weight)
    other.step()
    assert optimizer.state[head.weight].keys() == other.state[head.weight].keys()


def ready(name: str = "x2softmax", mode: str = "exact") -> tuple[MarginHead, SGD]:
    head = make_head(name, mode)
    optimizer = SGD(head.parameters(), lr=0.1)
    head.centers.step_centers_in_backward = step_in_backward(optimizer, head.weight)
    return head, optimizer


def test_the_rate_of_a_loaded_state_counts() -> None:
    head, optimizer = ready()
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = 0.0
    optimizer.load_state_dict(state)
    before = head.weight.detach().clone()
    head(*make_batch()).backward()
    assert torch.equal(head.weight, before)


def test_a_loss_is_differentiated_once() -> None:
    head, _ = ready()
    loss = head(*make_batch())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_without_labels_nothing_moves() -> None:
    head, optimizer = ready()
    before = head.weight.detach().clone()
    embeddings, labels = make_batch()
    head(embeddings.requires_grad_(), torch.full_like(labels, -1)).backward()
    optimizer.step()
    assert torch.equal(head.weight, before)


def test_nothing_is_accumulated() -> None:
    head, optimizer = ready()
    for _ in range(2):
        optimizer.zero_grad()
        head(*make_batch()).backward()
        optimizer.step()
    head(*make_batch()).backward()
    with pytest.raises(InputError, match="a second backward pass before"):
        head(*make_batch()).backward()


def test_evaluation_moves_nothing() -> None:
    head, _ = ready()
    before = head.weight.detach().clone()
    head.eval()(*make_batch()).backward()
    assert torch.equal(head.weight, before)
    assert head.weight.grad is not None


def test_gradients_from_elsewhere_are_an_error() -> None:
    head, optimizer = ready(*OTHER_GRADIENT)
    head(*make_batch()).backward()
    with pytest.raises(InputError, match="one more gradient, from elsewhere"):
        optimizer.step()


@pytest.mark.parametrize(
    ("make_optimizer", "error", "says"),
    [
        (torch.optim.SGD, InputError, "use optimizer=sgd or optimizer=adamw"),
        (lambda p: AdamW(p, amsgrad=True), ValueError, "amsgrad=true has no version"),
    ],
)
def test_optimizers_that_cannot(
    make_optimizer: Callable[..., Any], error: type[Exception], says: str
) -> None:
    head = make_head("x2softmax", "exact")
    with pytest.raises(error, match=says):
        step_in_backward(make_optimizer(head.parameters()), head.weight)


INSIDE = "classifier.optimizer_in_backward=true"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["trainer.accumulate_grad_batches=2"], "accumulate_grad_batches=2 must be 1"),
        (["trainer=ddp_gloo", "trainer.devices=2"], "use trainer=class_parallel"),
        (["trainer=ddp_gloo", "trainer.devices=1"], "averages over its processes, even with one"),
        (["optimizer._target_=torch.optim.SGD"], "use optimizer=sgd or optimizer=adamw"),
        (["classifier.sample_rate=0.5", "classifier.sampling=dense"], "use sampling=sparse"),
    ],
)
def test_runs_that_cannot(
    tiny_run: list[str], tmp_path: Path, settings: list[str], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        train(compose(*tiny_run, INSIDE, *settings, run_dir=tmp_path))


def test_steps_that_may_have_to_be_left_out() -> None:
    scaling = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    trainer = L.Trainer(accelerator="cpu", plugins=[scaling], logger=False)
    with pytest.raises(InputError, match="16-mixed needs: use bf16-mixed or 32-true"):
        check_classifier(ClassifierOptions(optimizer_in_backward=True), trainer)


def test_a_run_has_the_same_losses_and_can_be_gone_on_with(
    tiny_run: list[str], tmp_path: Path
) -> None:
    run = [*tiny_run, "optimizer=adamw", "optimizer.lr=1e-3", "scheduler=constant"]
    train(compose(*run, "trainer.max_steps=6", run_dir=tmp_path / "outside"))
    train(compose(*run, "trainer.max_steps=3", INSIDE, run_dir=tmp_path / "inside"))
    steps = ("trainer.max_steps=4", "trainer.max_steps=6")
    train(compose(*run, steps[0], run_dir=tmp_path / "inside"))  # and without
    train(compose(*run, steps[1], INSIDE, run_dir=tmp_path / "inside"))  # and back
    outside, inside = losses(tmp_path / "outside"), losses(tmp_path / "inside")
    assert list(outside) == list(inside) == list(range(6))
    assert list(inside.values()) == pytest.approx(list(outside.values()), rel=1e-4)
