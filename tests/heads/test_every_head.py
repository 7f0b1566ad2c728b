"""What holds for every registered head, without naming any."""

import inspect
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from helpers.head_references import TARGETS, reference_loss
from helpers.small_heads import cosines, plain_logits
from marginface.classifier.losses import CrossEntropy
from marginface.config.resolve import config_dir
from marginface.heads import MarginHead, create_head, head_defaults, list_heads, margin_class
from marginface.heads._batch import LabeledBatch
from marginface.heads._functional import derivative
from marginface.heads.analysis.first_loss import expected_first_loss, sizes_of

HEADS = list_heads()
B, C, D = 12, 9, 8


def make(name: str, **parameters: Any) -> MarginHead:
    torch.manual_seed(0)
    return create_head(name, embedding_size=D, num_classes=C, **parameters).double()


def first_loss(head: MarginHead) -> float:
    return expected_first_loss(head.margin, head.loss, **sizes_of(head))


def batch(seed: int = 1, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(B, D, generator=generator, dtype=dtype)
    return embeddings, torch.randint(0, C, (B,), generator=generator)


def with_gradient(name: str, mode: str) -> MarginHead:
    if "margin_gradient" in head_defaults(name):
        return make(name, margin_gradient=mode)
    head = make(name)
    head.margin.margin_gradient = mode
    return head


@pytest.mark.parametrize("name", HEADS)
def test_names_agree(name: str) -> None:
    module = inspect.getmodule(margin_class(name))
    assert module is not None
    assert module.__name__ == f"marginface.heads.{name}"
    assert (config_dir() / "head" / f"{name}.yaml").is_file()


def test_every_config_is_a_head() -> None:
    assert {path.stem for path in (config_dir() / "head").glob("*.yaml")} == set(HEADS)


@pytest.mark.parametrize("name", HEADS)
def test_yaml_repeats_the_constructor_defaults(name: str) -> None:
    node = yaml.safe_load((config_dir() / "head" / f"{name}.yaml").read_text())
    assert node == {"name": name, **head_defaults(name)}


@pytest.mark.parametrize("name", HEADS)
def test_loss_equals_the_loop_reference(name: str) -> None:
    head = make(name)
    if name.startswith("elasticface"):
        head.eval()  # the mean margin; its noise has tests of its own
    embeddings, labels = batch()
    labels[3] = -1
    expected = reference_loss(
        name,
        embeddings.tolist(),
        head.weight.tolist(),
        labels.tolist(),
        # A head without a formula in head_references.py is held to the loss around its own curve.
        lambda c: float(head.margin.curve(torch.tensor(c, dtype=torch.float64))),
        scale=float(head.margin.scale),
    )
    assert head(embeddings, labels).item() == pytest.approx(expected, rel=1e-10)


def test_every_reference_belongs_to_a_head() -> None:
    assert set(TARGETS) <= set(HEADS)
    assert len(TARGETS) >= 24  # the heads that came with marginface; yours may have none


@pytest.mark.parametrize("name", HEADS)
def test_exact_gradient_is_the_derivative(name: str) -> None:
    head = with_gradient(name, "exact").eval()
    embeddings, labels = batch()
    # AdaFace's quality is a constant to autograd; for long vectors it is clipped to 1. MagFace's
    # margin is not, and follows norms between 10 and 110.
    longer = 1e4 if name == "adaface" else 10.0
    embeddings, weight = longer * embeddings, 100 * head.weight.detach()

    def loss(e: Tensor, w: Tensor) -> Tensor:
        return torch.func.functional_call(head, {"centers.weight": w}, (e, labels))

    assert torch.autograd.gradcheck(loss, (embeddings.requires_grad_(), weight.requires_grad_()))


@pytest.mark.parametrize("name", HEADS)
def test_straight_through_takes_slope_one(name: str) -> None:
    cosine = torch.linspace(-0.99, 0.99, 41, dtype=torch.float64, requires_grad=True)
    head = with_gradient(name, "straight_through")
    (gradient,) = torch.autograd.grad(head.target_logit(cosine).sum(), cosine)
    torch.testing.assert_close(gradient, torch.ones_like(gradient))
    exact = with_gradient(name, "exact").target_logit(cosine)
    torch.testing.assert_close(exact, head.target_logit(cosine), rtol=0, atol=0)


@pytest.mark.parametrize("name", HEADS)
def test_straight_through_gradient_of_the_logits(name: str) -> None:
    """dL/d(embedding) is scale (softmax - onehot) through the plain cosines."""
    head = with_gradient(name, "straight_through").eval()
    if head.loss.__class__ is not CrossEntropy or name == "sphereface":
        pytest.skip("about cross-entropy; SphereFace's scale is itself a function of the embedding")
    embeddings, labels = batch()
    embeddings.requires_grad_()
    loss = head(embeddings, labels) - auxiliary_loss(head, embeddings, labels)
    (gradient,) = torch.autograd.grad(loss, embeddings)
    probabilities = head.logits(embeddings, labels).detach().softmax(1)
    probabilities[torch.arange(B), labels] -= 1
    plain = plain_logits(head, embeddings)
    (expected,) = torch.autograd.grad((probabilities / B * plain).sum(), embeddings)
    torch.testing.assert_close(gradient, expected)


def auxiliary_loss(head: MarginHead, embeddings: Tensor, labels: Tensor) -> Tensor | float:
    target = cosines(head, embeddings)[torch.arange(B), labels]
    return head.margin.auxiliary_loss(LabeledBatch(embeddings, labels, target))


@pytest.mark.parametrize("name", HEADS)
def test_slope_in_closed_form_equals_autograd(name: str) -> None:
    margin = make(name).margin
    cosine = torch.linspace(-0.999, 0.999, 101, dtype=torch.float64)
    slope = derivative(lambda c: margin.curve(c), cosine)
    if margin.margin_gradient != "detached_weights":  # that is a third gradient, see test_losses
        torch.testing.assert_close(margin.slope(cosine), slope)


@pytest.mark.parametrize("name", HEADS)
def test_only_the_target_column_changes(name: str) -> None:
    head = make(name).eval()
    embeddings, labels = batch()
    plain = plain_logits(head, embeddings)
    difference = head.logits(embeddings, labels) - plain
    difference[torch.arange(B), labels] = 0
    assert (difference.abs().max() > 0) == head.margin.changes_negatives


@pytest.mark.parametrize("name", [name for name in HEADS if margin_class(name).falls_with_angle])
def test_falls_with_the_angle(name: str) -> None:
    cosine = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    assert (make(name).target_logit(cosine).diff() > 0).all()


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("mode", ["straight_through", "exact"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_at_the_ends_and_for_a_zero_embedding(
    name: str, mode: str, dtype: torch.dtype
) -> None:
    head = with_gradient(name, mode).to(dtype)
    center = head.weight.detach()[0]
    embeddings = torch.stack([center, -center, 3 * center, torch.zeros(D, dtype=dtype)])
    embeddings.requires_grad_()
    loss = head(embeddings, torch.zeros(4, dtype=torch.int64))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(embeddings.grad).all()  # type: ignore[arg-type]
    assert torch.isfinite(head.weight.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    head = make(name).float().eval()
    embeddings, labels = batch(dtype=torch.float32)
    half = embeddings.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head(half, labels)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, head(half.float(), labels), rtol=0, atol=0)


@pytest.mark.parametrize("name", HEADS)
def test_ignored_rows_add_nothing(name: str) -> None:
    head, other = make(name), make(name)
    embeddings, labels = batch()
    labels[::2] = -1
    kept = other(embeddings[1::2], labels[1::2])
    torch.testing.assert_close(head(embeddings, labels), kept)
    before = [buffer.clone() for buffer in head.buffers()]
    nothing = head(embeddings.requires_grad_(), torch.full_like(labels, -1))
    nothing.backward()
    assert nothing.item() == 0
    assert all(p.grad is not None for p in head.parameters())  # or DDP would wait for them
    assert all(map(torch.equal, before, head.buffers()))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("num_classes", [500, 5_000])
def test_expected_first_loss(name: str, num_classes: int) -> None:
    torch.manual_seed(0)
    head = create_head(name, embedding_size=512, num_classes=num_classes)
    embeddings = torch.randn(256, 512)
    labels = torch.randint(0, num_classes, (256,))
    assert head(embeddings, labels).item() == pytest.approx(first_loss(head), rel=0.08)


@pytest.mark.parametrize("name", HEADS)
def test_state_survives_saving(name: str) -> None:
    head = make(name)
    torch.manual_seed(7)
    other = create_head(name, embedding_size=D, num_classes=C).double()
    for seed in range(3):
        head(*batch(seed))
    other.load_state_dict(head.state_dict())
    for seed in range(3, 6):
        assert torch.equal(head(*batch(seed)), other(*batch(seed)))


@pytest.mark.parametrize("name", HEADS)
def test_a_row_without_a_label_keeps_its_cosines(name: str) -> None:
    head = make(name).eval()
    embeddings, labels = batch()
    labels[2] = -1
    logits = head.logits(embeddings, labels)
    if name in ("curricularface", "mv_softmax") or not head.margin.changes_negatives:
        plain = plain_logits(head, embeddings)
        torch.testing.assert_close(logits[2], plain[2])


@pytest.mark.parametrize("name", HEADS)
def test_works_without_autograd(name: str) -> None:
    head = with_gradient(name, "exact").eval()
    embeddings, labels = batch()
    expected = head(embeddings, labels)
    with torch.inference_mode():
        assert head(embeddings, labels).item() == pytest.approx(expected.item(), rel=1e-14)


@pytest.mark.parametrize("name", HEADS)
def test_eval_mode_changes_no_state(name: str) -> None:
    head = make(name).eval()
    before = {key: value.clone() for key, value in head.state_dict().items()}
    head(*batch())
    head.logits(*batch())
    assert all(torch.equal(before[key], value) for key, value in head.state_dict().items())


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("num_classes", [2, 100_000])
def test_finite_for_two_and_for_many_classes(name: str, num_classes: int) -> None:
    torch.manual_seed(0)
    scale = {"scale": 64.0} if "scale" in head_defaults(name) else {}
    head = create_head(name, embedding_size=16, num_classes=num_classes, **scale)
    embeddings = torch.randn(1, 16, requires_grad=True)  # a batch of one
    for label in (0, num_classes - 1):
        loss = head(embeddings, torch.tensor([label]))
        loss.backward()
        assert torch.isfinite(loss)
    assert torch.isfinite(embeddings.grad).all()  # type: ignore[arg-type]
    assert torch.isfinite(head.weight.grad).all()  # type: ignore[arg-type]
    assert all(torch.isfinite(buffer).all() for buffer in head.buffers())


@pytest.mark.parametrize("name", HEADS)
def test_a_plain_loop_after_a_trainer(name: str) -> None:
    trained, plain = make(name), make(name)
    trained.begin_step()
    trained(*batch())
    trained.end_steps()
    plain(*batch())
    for seed in (5, 6):
        assert torch.equal(trained(*batch(seed)), plain(*batch(seed)))


@pytest.mark.parametrize("name", HEADS)
def test_parts_of_a_step_advance_the_state_once(name: str) -> None:
    whole, parts = make(name), make(name)
    embeddings, labels = batch()
    for _ in range(2):
        whole(embeddings, labels)
        parts.begin_step()
        for rows in (slice(0, 5), slice(5, B)):
            parts(embeddings[rows], labels[rows])
    torch.testing.assert_close(dict(whole.named_buffers()), dict(parts.named_buffers()))


@pytest.mark.parametrize("name", HEADS)
def test_a_head_file_stays_short(name: str) -> None:
    assert len(inspect.getsource(inspect.getmodule(margin_class(name))).splitlines()) < 65  # type: ignore[arg-type]


def test_expected_first_loss_of_ms1mv3_is_116() -> None:
    head = create_head("x2softmax", embedding_size=512, num_classes=93_431)
    assert first_loss(head) == pytest.approx(116.0, abs=0.05)
