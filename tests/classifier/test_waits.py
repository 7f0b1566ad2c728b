"""Steps of heads that ask a GPU for no number: the same results, and nothing to wait for."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from helpers.processes import run_processes
from helpers.small_heads import MODES, SMALL, B, C, D, make_batch, make_head
from helpers.waits import Waits, say_it_is_on_a_gpu
from marginface.classifier.center_chunks import CenterChunks, Chunk
from marginface.classifier.own_places import OwnPlaces
from marginface.classifier.sampling import sample_classes
from marginface.heads import list_heads


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the rows of a chunk not be counted."""
    monkeypatch.setattr(OwnPlaces, "_sorted_into", lambda places, chunks: None)


def step(name: str, mode: str, options: dict[str, Any]) -> tuple[list[Tensor], set[str]]:
    head = make_head(name, mode, options=options)
    embeddings, labels = make_batch()
    embeddings.requires_grad_()
    head.centers.know_labels(labels, labels)
    with Waits() as waits:
        loss = head(embeddings, labels)
        loss.backward()
    assert embeddings.grad is not None
    assert head.weight.grad is not None
    return [loss.detach(), embeddings.grad, head.weight.grad.to_dense()], waits.found


@pytest.mark.parametrize("sample_rate", [1.0, 0.8])
@pytest.mark.parametrize(("name", "mode"), MODES)
def test_many_chunks_a_sample_and_rows_without_a_label(
    name: str, mode: str, sample_rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**SMALL, "sample_rate": sample_rate}
    expected, found_on_cpu = step(name, mode, options)
    assert found_on_cpu, "what waits must be seen"
    as_on_a_gpu(monkeypatch)
    found, waits = step(name, mode, options)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    # The solver of q_margin looks whether it is done.
    assert {wait for wait in waits if "alpha_divergence.py" not in wait} == set()


WAYS: dict[str, dict[str, Any]] = {
    "all": {},
    "chunks": SMALL,
    "sample": {**SMALL, "sample_rate": 0.8},
    "float16": {"matmul_precision": "float16"},
}


def _forward_on_a_gpu(rank: int, world: int, name: str) -> dict[str, set[str]]:
    """On tensors that only say so. In a process of its own: autograd starts threads for a GPU."""
    torch.cuda.device_of = nullcontext  # type: ignore[assignment,misc]
    found = {}
    for way, options in WAYS.items():
        settings = {"kernel": "torch", **options}
        head = make_head(name, "straight_through", dtype=torch.float32, options=settings)
        labels_here = make_batch()[1].clamp(min=0)
        only_said = FakeTensorMode(allow_non_fake_inputs=True)
        with only_said:
            say_it_is_on_a_gpu(head)
            embeddings = torch.empty(B, D, device="cuda", requires_grad=True)
            labels = torch.empty(B, dtype=torch.int64, device="cuda")
        head.centers.know_labels(labels, labels_here)
        head.begin_step(3)
        with only_said, Waits() as waits:
            if name == "q_margin":  # its solver looks whether it is done
                with pytest.raises(DataDependentOutputException):
                    head(embeddings, labels)
            else:
                head(embeddings, labels)
        found[way] = {wait for wait in waits.found if "alpha_divergence.py" not in wait}
    return found


FIRST = ("adaface", "curricularface", "q_margin", "subcenter_arcface", "x2softmax")


@pytest.mark.parametrize(
    "name",
    [n if n in FIRST else pytest.param(n, marks=pytest.mark.slow) for n in list_heads()],
)
def test_the_forward_pass_sends_nothing(name: str, tmp_path: Path) -> None:
    """Autograd cannot differentiate on a GPU that is not there, so this is forward alone."""
    (found,) = run_processes(1, tmp_path, _forward_on_a_gpu, name)
    assert found == {way: set() for way in WAYS}


@pytest.mark.parametrize("per_class", [1, 3])
@pytest.mark.parametrize("ranks", [None, (1, 3)])
@pytest.mark.parametrize("size", [1, 4, C])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_places_of_own_classes(
    per_class: int,
    ranks: tuple[int, int] | None,
    size: int,
    on_gpu: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if on_gpu:
        as_on_a_gpu(monkeypatch)
    centers = make_head("arcface", ranks=ranks).centers
    first, here = (0, C) if centers.shard is None else (centers.shard.start, len(centers.weight))
    chunks = centers.chunks(torch.float64, B, normalized=True)
    parts = [
        Chunk(number, start, min(start + size, here))
        for number, start in enumerate(range(0, here, size))
    ]
    labels = torch.randint(0, C, (B,), generator=torch.Generator().manual_seed(0))
    values = torch.arange(1.0, B * per_class + 1).view(B, per_class)
    places = OwnPlaces(chunks, parts, labels)
    for what in (values, 7.0):
        for part in parts:
            expected = torch.zeros(part.stop - part.start, per_class, B)
            for row, label in enumerate((labels - first).tolist()):
                if part.start <= label < part.stop:
                    expected[label - part.start, :, row] = (
                        what if isinstance(what, float) else what[row]
                    )
            matrix = torch.zeros_like(expected)
            places.put(part, matrix, what)
            assert torch.equal(matrix, expected)


def test_the_number_of_sampled_classes_is_known_before_they_are() -> None:
    """Tensors without values have only what needs no values."""
    labels = torch.empty(B, dtype=torch.int64, device="meta")
    assert sample_classes(labels, 1000, 0.1, seed=0, step=3).shape == (100,)
    weight = torch.empty(1000, D, device="meta")
    options = make_head("arcface", options=SMALL).options
    chunks = CenterChunks(
        weight,
        torch.float32,
        per_class=1,
        normalized=True,
        shard=None,
        sample=sample_classes(labels, 1000, 0.1, seed=0, step=3),
        options=options,
        rows_of_batch=B,
    )
    assert chunks.count == 100
