"""Class centers spread over processes give what one process gives, for every head."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.processes import run_processes
from helpers.small_heads import (
    MODES,
    SMALL,
    B,
    C,
    D,
    cosines,
    make_batch,
    make_head,
    parts_of,
    state_of,
)
from marginface.classifier import Shard
from marginface.classifier.nearest import predictions
from marginface.classifier.sharding import init_centers
from marginface.heads import MarginHead, create_head
from marginface.training.strategies import agree_on_overflow
from marginface.utils import distributed
from marginface.utils.errors import InputError

Case = tuple[str, str]


def labels_for(case: str) -> Tensor:
    labels = make_batch()[1]
    if case == "one shard":
        return labels.clamp(-1, 6)  # with the first of 3
    return labels.clamp(min=0) if case == "equal parts" else labels


def whole(case: Case, labels: Tensor) -> dict[str, Tensor]:
    head = make_head(*case)
    embeddings = make_batch()[0].requires_grad_()
    loss = head.dense_loss(embeddings, labels)
    loss.backward()
    found = {"loss": loss.detach(), "dembeddings": embeddings.grad, "dweight": head.weight.grad}
    found |= {key: p.grad for key, p in head.named_parameters() if key != "centers.weight"}
    return {**found, **state_of(head)}


def part(case: Case, spread: str, rank: int, world: int) -> dict[str, Tensor]:
    """What process `rank` finds: the same loss, its rows of both gradients."""
    head = make_head(*case, ranks=(rank, world), options=SMALL)
    rows, labels = parts_of(world, spread)[rank], labels_for(spread)
    embeddings = make_batch()[0][rows].requires_grad_()
    loss = head(embeddings, labels[rows])
    loss.backward()
    assert embeddings.grad is not None
    found = {"loss": loss.detach(), "dembeddings": embeddings.grad / world}
    found |= {"dweight": head.weight.grad}
    found |= {key: p.grad for key, p in head.named_parameters() if key != "centers.weight"}
    return {**found, **state_of(head)}


def _every_head(rank: int, world: int) -> Any:
    return {
        (case, spread): part(case, spread, rank, world)
        for case in MODES
        for spread in ("all shards", "one shard", "equal parts")
    }


@pytest.mark.parametrize("world", [2, 3])
def test_shards_equal_one_process(world: int, tmp_path: Path) -> None:
    parts = run_processes(world, tmp_path, _every_head)
    for key in parts[0]:
        case, spread = key
        expected = whole(case, labels_for(spread))
        found = {name: [p[key][name] for p in parts] for name in expected}
        for name in expected:
            if name in ("dembeddings", "dweight"):
                value = torch.cat(found[name])
            else:
                assert all(torch.equal(found[name][0], other) for other in found[name]), (key, name)
                value = found[name][0]
            scale = float(expected[name].abs().max()) + 1e-30
            assert float((value - expected[name]).abs().max()) / scale < 1e-10, (key, name)


def _known_parts(rank: int, world: int) -> Any:
    """Every head, and with running states also unsharded, where nobody may ask for numbers."""

    def ask(*_: Any) -> Any:
        raise AssertionError("a process was asked how many rows it has")

    distributed.rows_of_ranks = ask
    labels = labels_for("equal parts")[parts_of(world, "equal parts")[rank]]

    def known_step(head: MarginHead) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        embeddings = make_batch()[0][parts_of(world, "equal parts")[rank]].requires_grad_()
        head.centers.know_labels(labels, labels, equal_parts=True)
        loss = head(embeddings, labels)
        loss.backward()
        assert embeddings.grad is not None
        return {"loss": loss.detach(), "dembeddings": embeddings.grad / world}, state_of(head)

    sharded = {
        case: known_step(make_head(*case, ranks=(rank, world), options=SMALL)) for case in MODES
    }
    return sharded, {case: known_step(make_head(*case))[1] for case in MODES}


def test_nobody_asks_where_all_have_equal_parts(tmp_path: Path) -> None:
    parts = run_processes(2, tmp_path, _known_parts)
    for case in MODES:
        expected = whole(case, labels_for("equal parts"))
        steps = [sharded[case] for sharded, _ in parts]
        gradient = torch.cat([found["dembeddings"] for found, _ in steps])
        torch.testing.assert_close(gradient, expected["dembeddings"], rtol=1e-9, atol=1e-12)
        for found, _ in steps:
            torch.testing.assert_close(found["loss"], expected["loss"], rtol=1e-9, atol=1e-12)
        for state in [state for _, state in steps] + [unsharded[case] for _, unsharded in parts]:
            for key, value in state.items():
                torch.testing.assert_close(value, expected[key], rtol=1e-9, atol=1e-12)


def test_a_promise_of_equal_parts_that_is_broken() -> None:
    labels = torch.tensor([0, -1])
    with pytest.raises(InputError, match="row of this batch has the label -1"):
        make_head("arcface", "exact").centers.know_labels(labels, labels, equal_parts=True)


def _few(rank: int, world: int) -> Any:
    """More processes than classes, one without rows, then no labels anywhere."""
    torch.manual_seed(0)
    shard = Shard(rank, world, 2)
    head = create_head("adaface", embedding_size=D, num_classes=2, shard=shard).double()
    embeddings, labels = make_batch()[0], make_batch()[1].clamp(max=1)
    rows = [slice(0, 4), slice(4, 4), slice(4, B)][rank]
    loss = head(embeddings[rows].requires_grad_(), labels[rows])
    loss.backward()
    found = {"loss": loss.detach(), "dweight": head.weight.grad}
    nothing = head(embeddings[rows], torch.full_like(labels[rows], -1))
    nothing.backward()
    assert nothing == 0
    return found


def test_more_processes_than_classes(tmp_path: Path) -> None:
    parts = run_processes(3, tmp_path, _few)
    torch.manual_seed(0)
    head = create_head("adaface", embedding_size=D, num_classes=2).double()
    loss = head(make_batch()[0], make_batch()[1].clamp(max=1))
    loss.backward()
    assert all(part["loss"] == pytest.approx(loss.item(), rel=1e-12) for part in parts)
    assert [len(part["dweight"]) for part in parts] == [1, 1, 0]
    torch.testing.assert_close(torch.cat([p["dweight"] for p in parts]), head.weight.grad)


def _no_labels_on_one(rank: int, world: int) -> Any:
    head = make_head("adaface", "exact")
    embeddings, labels = make_batch()
    head(embeddings, labels if rank == 0 else torch.full_like(labels, -1)).backward()
    return state_of(head)


def test_one_process_without_labels_keeps_no_other_waiting(tmp_path: Path) -> None:
    first, second = run_processes(2, tmp_path, _no_labels_on_one)
    assert first == second
    assert first["margin.batch_mean"] != 20  # where it began


def test_a_part_of_the_centers_alone_is_an_error() -> None:
    head = make_head("x2softmax", "exact", ranks=(0, 2))
    with pytest.raises(InputError, match="one of 2 parts of the class centers, and 1 processes"):
        head(*make_batch())
    with pytest.raises(InputError, match="sharded over processes"):
        head.logits(*make_batch())


def _overflow(rank: int, world: int) -> Any:
    found = []
    for bad in (None, 1):
        centers, other = (torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2))
        centers.grad, other.grad = torch.ones(2, 3), torch.ones(2, 3)
        if rank == bad:
            centers.grad[1, 2] = torch.inf
        agree_on_overflow(centers, [centers, other])
        found.append([bool(p.grad.isnan().all()) for p in (centers, other)])
        found.append([bool(torch.equal(p.grad, torch.ones(2, 3))) for p in (centers, other)])
    return found


def test_an_overflow_on_one_process_is_one_on_all(tmp_path: Path) -> None:
    clean, marked = [[False, False], [True, True]], [[True, True], [False, False]]
    for found in run_processes(2, tmp_path, _overflow):
        assert found == [*clean, *marked]


def _bfloat16(rank: int, world: int) -> Any:
    found = {}
    for case in ("all shards", "equal parts"):  # both ways in which gradients are added up
        options = {"communication_precision": "bfloat16"}
        head = make_head("x2softmax", "exact", ranks=(rank, world), options=options)
        rows, labels = parts_of(world, case)[rank], labels_for(case)
        embeddings = make_batch()[0][rows].requires_grad_()
        loss = head(embeddings, labels[rows])
        loss.backward()
        found[case] = (loss.detach(), embeddings.grad / world)  # type: ignore[operator]
    return found


def test_bfloat16_collectives_are_near(tmp_path: Path) -> None:
    parts = run_processes(2, tmp_path, _bfloat16)
    for case in ("all shards", "equal parts"):
        expected = whole(("x2softmax", "exact"), labels_for(case))
        loss, gradient = parts[0][case][0], torch.cat([part[case][1] for part in parts])
        assert 0 < float((loss - expected["loss"]).abs() / expected["loss"]) < 2e-2
        error = (gradient - expected["dembeddings"]).norm() / expected["dembeddings"].norm()
        assert 0 < float(error) < 0.1


def _predict(rank: int, world: int) -> Any:
    head = make_head("arcface", "exact", ranks=(rank, world))
    rows = parts_of(world)[rank]
    return predictions(head.centers, make_batch()[0][rows], make_batch()[1][rows])


def test_predictions_of_shards(tmp_path: Path) -> None:
    parts = run_processes(3, tmp_path, _predict)
    head, (embeddings, labels) = make_head("arcface", "exact"), make_batch()
    cosine = cosines(head, embeddings)
    assert torch.equal(torch.cat([p[0] for p in parts]), cosine.argmax(1))
    labeled = labels >= 0
    own = torch.cat([p[1] for p in parts])[labeled]
    torch.testing.assert_close(own, cosine[labeled, labels[labeled]])


@pytest.mark.parametrize("world", [1, 2, 3, 5, 40])
def test_every_class_is_in_one_shard(world: int) -> None:
    shards = [Shard(rank, world, C) for rank in range(world)]
    assert [c for s in shards for c in range(s.start, s.stop)] == list(range(C))


@pytest.mark.parametrize("rows", [5, 1 << 16, (1 << 17) + 4097])
def test_a_shard_is_drawn_like_a_part_of_the_whole(rows: int) -> None:
    torch.manual_seed(3)
    everything, following = init_centers(rows, 3, 0.01), torch.rand(1)
    for first, stop in ((0, rows // 2), (rows // 2, rows), (rows - 1, rows), (0, 0)):
        torch.manual_seed(3)
        assert torch.equal(init_centers(rows, 3, 0.01, first, stop), everything[first:stop])
        assert torch.equal(torch.rand(1), following)


def test_one_process_may_have_a_shard_of_all() -> None:
    head = make_head("x2softmax", "exact", ranks=(0, 1))
    embeddings, labels = make_batch()
    assert head.weight.shape == (C, D)
    assert torch.equal(
        head(embeddings, labels), make_head("x2softmax", "exact")(embeddings, labels)
    )
