"""Partial FC: which classes, that only they move, and that nothing changes at rate 1."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers.operations import Operations
from helpers.processes import run_processes
from helpers.small_heads import MAKE_OPTIMIZER, MODES, SMALL, make_head
from marginface.classifier import ClassifierOptions
from marginface.classifier.sampling import sample_classes
from marginface.heads import MarginHead, create_head, head_defaults
from marginface.training import optimizers
from marginface.training.optimizers import AdamW
from marginface.utils.errors import InputError

B, C, D = 6, 40, 8
TORCH = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "plain": lambda p: torch.optim.SGD(p, lr=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
}


def make(
    name: str = "x2softmax", mode: str | None = None, *, ranks: Any = None, **options: Any
) -> MarginHead:
    return make_head(
        name, mode, classes=C, width=D, length=1.0, ranks=ranks, options={**SMALL, **options}
    )


def batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, C, (B,), generator=generator)
    return torch.randn(B, D, generator=generator, dtype=torch.float64), labels


def sampled(head: MarginHead, labels: Tensor, step: int) -> Tensor:
    return sample_classes(labels, C, head.options.sample_rate, head.centers.seed, step)


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.5, 1.0])
def test_sample(rate: float) -> None:
    labels = torch.tensor([3, 3, 39, 17])
    seen = [sample_classes(labels, C, rate, 5, step) for step in range(50)]
    for classes in seen:
        assert torch.equal(classes, classes.unique())
        assert {3, 17, 39} <= set(classes.tolist())
        assert len(classes) == max(round(rate * C), 4)  # one other class at least
    assert torch.equal(seen[7], sample_classes(labels, C, rate, 5, 7))
    if 3 < rate * C < C:
        assert not torch.equal(seen[0], seen[1])
        assert not torch.equal(seen[0], sample_classes(labels, C, rate, 6, 0))
        counts = torch.cat(seen).bincount(minlength=C)
        assert counts.min() > 0, "some class is never drawn"


@pytest.mark.parametrize("kind", MAKE_OPTIMIZER)
@pytest.mark.parametrize("name", ["x2softmax", "subcenter_arcface", "curricularface"])
def test_only_sampled_rows_move(name: str, kind: str) -> None:
    head = make(name, sample_rate=0.25)
    head.margin.scale = 8.0  # or the gradient of a far class may be too small to change it
    optimizer = MAKE_OPTIMIZER[kind](head.parameters())
    for step in range(4):
        before = head.weight.detach().clone()
        state = {k: v.clone() for k, v in optimizer.state[head.weight].items() if v is not None}
        embeddings, labels = batch(step)
        optimizer.zero_grad()
        head(embeddings, labels).backward()
        optimizer.step()
        k = head.centers.centers_per_class
        moved = torch.zeros(C, dtype=torch.bool)
        moved[sampled(head, labels, step)] = True
        moved = moved.repeat_interleave(k)
        assert moved.sum() == 10 * k
        assert torch.equal(head.weight[~moved], before[~moved])
        # Of three sub-centers of a class one may be nearest to no image.
        changed = (head.weight != before).any(1)[moved]
        assert changed.all() if k == 1 else changed.sum() >= 10
        for key, value in state.items():
            if value.ndim == 2:
                assert torch.equal(optimizer.state[head.weight][key][~moved], value[~moved])


@pytest.mark.parametrize(("name", "mode"), MODES)
@pytest.mark.parametrize("per_chunk", [0.001, 16.0])
def test_sampled_loss_is_that_of_a_head_of_the_sampled_classes(
    name: str, mode: str, per_chunk: float
) -> None:
    """The sample as a head of its own: another way to the same loss and gradients."""
    head = make(name, mode, sample_rate=0.25, chunk_mib=per_chunk)
    embeddings, labels = batch(1)
    embeddings.requires_grad_()
    classes = sampled(head, labels, 0)
    k = head.centers.centers_per_class
    rows = (classes[:, None] * k + torch.arange(k)).flatten()
    mode_of = {"margin_gradient": mode} if "margin_gradient" in head_defaults(name) else {}
    small = create_head(name, embedding_size=D, num_classes=len(classes), **mode_of).double()
    state = {key: v for key, v in head.state_dict().items() if key != "centers.weight"}
    small.load_state_dict(state | {"centers.weight": head.weight.detach()[rows]})
    if hasattr(head.loss, "first_threshold"):
        small.loss.first_threshold = head.loss.first_threshold
        small.loss.positive_weight = head.loss.positive_weight
    other = embeddings.detach().clone().requires_grad_()
    loss, expected = head(embeddings, labels), small(other, torch.searchsorted(classes, labels))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    assert head.weight.grad.is_sparse
    torch.testing.assert_close(embeddings.grad, other.grad)
    dense = head.weight.grad.to_dense()
    torch.testing.assert_close(dense[rows], small.weight.grad)
    assert dense.abs().sum() == pytest.approx(float(dense[rows].abs().sum()))


@pytest.mark.parametrize("kind", MAKE_OPTIMIZER)
def test_sparse_steps_equal_torch_where_every_row_is_sampled(kind: str) -> None:
    ours, theirs = (torch.nn.Parameter(torch.randn(5, 3).double()) for _ in range(2))
    theirs.data = ours.data.clone()
    our, their = MAKE_OPTIMIZER[kind]([ours]), TORCH[kind]([theirs])
    for step in range(4):
        gradient = torch.randn(5, 3, generator=torch.Generator().manual_seed(step)).double()
        order = torch.tensor([4, 0, 2, 1, 3])
        ours.grad = torch.sparse_coo_tensor(order[None], gradient[order], (5, 3))
        theirs.grad = gradient
        our.step()
        their.step()
        torch.testing.assert_close(ours, theirs)
    for key, value in their.state[theirs].items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(our.state[ours][key], value)


@pytest.mark.parametrize("kind", MAKE_OPTIMIZER)
@pytest.mark.parametrize("block", [1, 6, 1000])
def test_blocks_equal_torch(kind: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "_LARGE", 10)
    monkeypatch.setattr(optimizers, "_BLOCK", block)
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(5, 3))
    theirs = torch.nn.Parameter(ours.detach().clone())
    our, their = MAKE_OPTIMIZER[kind]([ours]), TORCH[kind]([theirs])
    for step in range(4):
        ours.grad = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        theirs.grad = ours.grad.clone()
        our.step()
        their.step()
        assert torch.equal(ours.grad, theirs.grad)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", MAKE_OPTIMIZER)
def test_on_a_gpu_a_step_of_all_centers_is_some_launches(kind: str) -> None:
    centers = torch.nn.Parameter(torch.empty(93_431, 512, device="meta"))
    optimizer = MAKE_OPTIMIZER[kind]([centers])
    for _ in range(2):
        centers.grad = torch.empty_like(centers)
        with Operations() as operations:
            optimizer.step()
    assert operations.launched().total() <= 20, operations.launched()


def test_options_without_a_sparse_version() -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    parameter.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, 2), (3, 2))
    with pytest.raises(ValueError, match="amsgrad=true has no version for some rows only"):
        AdamW([parameter], amsgrad=True).step()


@pytest.mark.parametrize("kind", MAKE_OPTIMIZER)
def test_dense_gradients_take_the_way_of_torch(kind: str) -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(5, 3)) for _ in range(2))
    our, their = MAKE_OPTIMIZER[kind]([ours]), TORCH[kind]([theirs])
    for _ in range(3):
        ours.grad, theirs.grad = torch.full((5, 3), 0.7), torch.full((5, 3), 0.7)
        our.step()
        their.step()
        assert torch.equal(ours, theirs)


def test_dense_sampling_moves_all_rows_as_partial_fc_v2_does() -> None:
    head = make(sample_rate=0.25, sampling="dense")
    optimizer = MAKE_OPTIMIZER["sgd"](head.parameters())
    for step in range(2):
        before = head.weight.detach().clone()
        optimizer.zero_grad()
        head(*batch(step)).backward()
        assert not head.weight.grad.is_sparse
        optimizer.step()
        assert (head.weight != before).any(1).all()


@pytest.mark.parametrize("sampling", ["sparse", "dense"])
def test_rate_one_is_the_full_head(sampling: str) -> None:
    # Through the code for samples, with a sample of everything.
    head, full = make(sample_rate=0.999, sampling=sampling), make()
    assert head.options.samples
    for h in (head, full):
        optimizer = MAKE_OPTIMIZER["sgd"](h.parameters())
        for step in range(3):
            optimizer.zero_grad()
            h(*batch(step)).backward()
            optimizer.step()
    torch.testing.assert_close(head.weight, full.weight, rtol=1e-13, atol=1e-13)


def test_evaluation_sees_all_classes() -> None:
    head = make(sample_rate=0.25).eval()
    assert torch.equal(head(*batch(0)), make().eval()(*batch(0)))


def test_accumulated_gradients_add_up() -> None:
    head = make(sample_rate=0.25)
    head.begin_step(0)
    parts = []
    for seed in (1, 2):
        head.weight.grad = None
        head(*batch(seed)).backward()
        parts.append(head.weight.grad.to_dense())
    head.weight.grad = None
    for seed in (1, 2):
        head(*batch(seed)).backward()
    torch.testing.assert_close(head.weight.grad.coalesce().to_dense(), parts[0] + parts[1])


@pytest.mark.parametrize("name", ["x2softmax", "subcenter_arcface", "dynarcface"])
def test_nobody_has_to_sort_the_gradient(name: str) -> None:
    """Nor is it said to be in order where that is wrong: after several backward passes."""
    head = make(name, sample_rate=0.25)
    head.begin_step(0)
    parts = []
    for seed in (1, 2):
        head.weight.grad = None
        head(*batch(seed)).backward()
        assert head.weight.grad.is_coalesced()
        rows = head.weight.grad.indices()[0]
        assert torch.equal(rows, rows.unique())
        parts.append(head.weight.grad.to_dense())
    head(*batch(1)).backward()
    whole = head.weight.grad
    torch.testing.assert_close(whole.to_dense(), sum(parts))
    rows = whole._indices()[0]
    assert whole.is_coalesced() == torch.equal(rows, rows.unique())


def test_filtering_takes_near_classes_for_orthogonal_ones() -> None:
    """Written out as insightface's code has it: the cosine becomes 0, in value and gradient."""
    head = make("arcface", interclass_filtering_threshold=0.3)
    embeddings, labels = batch(3)
    with torch.no_grad():
        head.weight[7] = embeddings[0]
    labels[0], labels[1] = 3, 7
    embeddings.requires_grad_()
    loss = head(embeddings, labels)
    loss.backward()
    weight = head.weight.detach().clone().requires_grad_()
    other = embeddings.detach().clone().requires_grad_()
    cosine = F.linear(F.normalize(other), F.normalize(weight))
    own = F.one_hot(labels, C).bool()
    dirty = (cosine > 0.3) & ~own
    assert dirty[0, 7]
    logits = 64 * torch.where(own, head.target_logit(cosine), cosine * ~dirty)
    expected = F.cross_entropy(logits, labels)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(embeddings.grad, other.grad)
    torch.testing.assert_close(head.weight.grad, weight.grad)


def _sharded_steps(rank: int, world: int) -> Any:
    head = make(ranks=(rank, world), sample_rate=0.25)
    return _steps(head, slice(rank * 2, rank * 2 + 2))


def _steps(head: MarginHead, rows: slice) -> tuple[list[float], Tensor]:
    optimizer = MAKE_OPTIMIZER["sgd"](head.parameters())
    losses = []
    for step in range(4):
        embeddings, labels = batch(step)
        optimizer.zero_grad()
        loss = head(embeddings[rows], labels[rows])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, head.weight.detach()


def test_shards_sample_what_one_process_samples(tmp_path: Path) -> None:
    parts = run_processes(3, tmp_path, _sharded_steps)
    losses, weight = _steps(make(sample_rate=0.25), slice(0, B))
    for found, _ in parts:
        assert found == pytest.approx(losses, rel=1e-12)
    torch.testing.assert_close(torch.cat([w for _, w in parts]), weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0.0}, "sample_rate must be in (0, 1], got 0.0"),
        ({"sample_rate": 1.5}, "sample_rate must be in (0, 1], got 1.5"),
        (
            {"interclass_filtering_threshold": 1.0},
            "interclass_filtering_threshold is a cosine in (0, 1), got 1.0",
        ),
        ({"chunk_mib": 0.0}, "chunk_mib must be positive, got 0.0"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as error:
        ClassifierOptions(**options)  # type: ignore[arg-type]
    assert message in str(error.value)
