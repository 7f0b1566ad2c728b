"""Losses over logits, alone and under curves they were not invented for."""

import math

import pytest
import torch
from torch import Tensor

from helpers.head_references import alpha_divergence, cross_entropy, uce
from helpers.small_heads import cosines
from marginface.classifier.losses import AlphaDivergence, balanced_bias, create_loss
from marginface.heads import create_head
from marginface.utils.errors import InputError

CURVES = ["x2softmax", "arcface", "combined", "dynarcface", "expface", "sphereface_r"]
B, C, D = 6, 9, 8


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(B, D, generator=generator, dtype=torch.float64)
    return embeddings, torch.randint(0, C, (B,), generator=generator)


def rows_of(name: str) -> tuple[list[list[float]], list[list[float]], list[int]]:
    """Logits with margin, scaled plain cosines and labels of a head's batch, as Python numbers."""
    torch.manual_seed(0)
    head = create_head(name, embedding_size=D, num_classes=C).double().eval()
    embeddings, labels = batch()
    plain = head.margin.scale * cosines(head, embeddings)
    return head.logits(embeddings, labels).tolist(), plain.tolist(), labels.tolist()


def loss_of(name: str, loss: object) -> float:
    torch.manual_seed(0)
    head = create_head(name, embedding_size=D, num_classes=C, loss=loss)
    return head.double().eval()(*batch()).item()


@pytest.mark.parametrize("name", CURVES)
def test_alpha_divergence_of_any_curve(name: str) -> None:
    logits, plain, labels = rows_of(name)
    expected = []
    for with_margin, row, label in zip(logits, plain, labels, strict=True):
        prior = (1 + 0.25 * abs(with_margin[label] - row[label])) ** -4
        expected.append(alpha_divergence(row, label, prior))
    assert loss_of(name, "alpha_divergence") == pytest.approx(sum(expected) / B, rel=1e-10)


@pytest.mark.parametrize("name", CURVES)
def test_bce_of_any_curve(name: str) -> None:
    logits, _, labels = rows_of(name)
    losses = [uce(row, y, math.log(10 * C)) for row, y in zip(logits, labels, strict=True)]
    assert loss_of(name, "bce") == pytest.approx(sum(losses) / B, rel=1e-10)


def test_circle_of_plain_cosines_is_the_circle_head() -> None:
    circle = loss_of("circle", "cross_entropy")
    torch.manual_seed(0)
    head = create_head("normface", embedding_size=D, num_classes=C, scale=256.0, loss="circle")
    assert head.double()(*batch()).item() == pytest.approx(circle, rel=1e-12)


def test_circle_gradients_agree_with_the_circle_head() -> None:
    gradients = []
    for name, loss in [("circle", "cross_entropy"), ("normface", "circle")]:
        torch.manual_seed(0)
        head = create_head(name, embedding_size=D, num_classes=C, scale=256.0, loss=loss).double()
        head(*batch()).backward()
        gradients.append(head.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_sparse_variant_of_x2softmax() -> None:
    """s = 64, alpha = 1.25: values that were worked out by hand for 5,001 classes."""
    torch.manual_seed(0)
    negatives = torch.randn(5000, dtype=torch.float64) / math.sqrt(512)
    loss = AlphaDivergence()
    values = []
    for cosine in (0.1, 0.5, 0.7, 0.8):
        logits = 64 * torch.cat([torch.tensor([cosine]).double(), negatives])[None]
        margin_free = logits[:, 0].clone()
        logits[0, 0] = 64 * (-0.9 * math.acos(cosine) ** 2 + 0.65)
        values.append(loss(logits, torch.tensor([0]), margin_free).item())
    # Other random negatives than theirs, so to a few percent.
    assert values[:3] == pytest.approx([75.5, 21.4, 1.63], rel=0.15)
    assert values[3] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("alpha", [1.1, 1.25, 1.5, 2.0])
def test_gradient_is_p_minus_onehot_and_sparse(alpha: float) -> None:
    torch.manual_seed(0)
    logits = (4 * torch.randn(5, 200, dtype=torch.float64)).requires_grad_()
    labels = torch.arange(5)
    loss = AlphaDivergence(alpha, "exponential")
    margin = torch.tensor([0.0, 0.5, 1.0, 2.0, 4.0], dtype=torch.float64)

    def total(z: Tensor) -> Tensor:
        own = z[labels, labels]
        shifted = z.index_put((labels, labels), own.detach() - margin)
        return loss(shifted, labels, own).sum()

    assert torch.autograd.gradcheck(total, logits)
    (gradient,) = torch.autograd.grad(total(logits), logits)
    p = gradient + torch.eye(5, 200, dtype=torch.float64)
    torch.testing.assert_close(p.sum(1), torch.ones(5, dtype=torch.float64))
    assert (p >= -1e-12).all()
    assert (p[:, 5:].abs() < 1e-12).double().mean() > (0.3 if alpha == 1.1 else 0.8)


def test_alpha_towards_one_is_cosface() -> None:
    torch.manual_seed(0)
    q = create_head("q_margin", embedding_size=D, num_classes=C, alpha=1.0001).double()
    cosface = create_head("cosface", embedding_size=D, num_classes=C, scale=32.0, margin=0.2)
    cosface.load_state_dict(q.state_dict())
    assert q(*batch()).item() == pytest.approx(cosface.double()(*batch()).item(), rel=1e-3)


def test_float32_agrees_with_float64() -> None:
    torch.manual_seed(0)
    logits = 64 * torch.randn(8, 10_000) / math.sqrt(512)
    labels, margin_free = torch.arange(8), torch.linspace(0, 50, 8)
    for loss in (AlphaDivergence(1.25), AlphaDivergence(1.5, "exponential")):
        single = loss(logits, labels, margin_free)
        double = loss(logits.double(), labels, margin_free.double())
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-4)


def test_bce_learns_its_threshold() -> None:
    head = create_head("uniface", embedding_size=D, num_classes=C)
    head(*batch()).backward()
    (learned,) = [p for name, p in head.named_parameters() if name != "centers.weight"]
    assert learned.grad is not None
    assert learned.grad.abs() > 0
    assert head.loss.threshold == pytest.approx(math.log(10 * C))


def test_balanced_bias_in_both_forms() -> None:
    for odds in (1e-6, 0.01, 0.9, 1.0, 2.3, 50.0):
        b = balanced_bias(odds, -46.0, -14.0)
        sigmoid = torch.tensor([46.0 - b, -14.0 + b], dtype=torch.float64).sigmoid()
        assert (odds * sigmoid[0]).item() == pytest.approx(sigmoid[1].item(), rel=1e-9)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("focal", "unknown loss 'focal'. Known: alpha_divergence, bce, circle, cross_entropy"),
        ("cross_entropi", "Did you mean 'cross_entropy'"),
        ({"name": "bce", "tresh": 1}, "no parameter 'tresh'. Did you mean 'threshold'.*accepts"),
        (
            {"name": "alpha_divergence", "alpha": 3.0},
            "alpha=3.0: input should be less than or equal to 2",
        ),
        (
            {"name": "alpha_divergence", "prior": "flat"},
            "prior='flat': input should be 'linear' or 'exponential'",
        ),
        ({}, "unknown loss 'None'"),
        (
            {"name": "alpha_divergence", "alpha": "1.5"},
            "alpha='1.5': a str where a float is expected",
        ),
        ({"name": "bce", "negative_weight": -1.0}, "input should be greater than 0"),
    ],
)
def test_wrong_losses(loss: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_head("x2softmax", embedding_size=D, num_classes=C, loss=loss)


def test_alpha_divergence_refuses_exact_margins() -> None:
    with pytest.raises(InputError, match="use margin_gradient=straight_through"):
        create_head(
            "arcface", embedding_size=D, num_classes=C, loss="alpha_divergence",
            margin_gradient="exact",
        )  # fmt: skip
    create_head("cosface", embedding_size=D, num_classes=C, loss="alpha_divergence")


@pytest.mark.parametrize(
    ("name", "loss", "message"),
    [
        ("qamface", "alpha_divergence", "needs the plain cosines"),
        ("circle", "circle", "needs the plain cosines"),
        ("curricularface", "circle", "needs the plain cosines"),
        ("softmax", "circle", "needs logits of a fixed scale"),
        ("adacos", "circle", "needs logits of a fixed scale"),
    ],
)
def test_combinations_without_a_meaning_are_refused(name: str, loss: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_head(name, embedding_size=D, num_classes=C, loss=loss, margin_gradient="exact")


def test_priors_that_overflow_are_refused() -> None:
    with pytest.raises(InputError, match="overflows for 2.0, 200.0, 0.5"):
        create_head("q_margin", embedding_size=D, num_classes=C, alpha=2.0, scale=200.0, margin=0.5)


def test_cross_entropy_is_the_default() -> None:
    logits = torch.randn(4, 7, dtype=torch.float64)
    loss = create_loss("cross_entropy", num_classes=7, scale=1.0)
    values = loss(logits, torch.tensor([0, 3, 6, 2]), logits[:, 0])
    expected = [cross_entropy(row, y) for row, y in zip(logits.tolist(), [0, 3, 6, 2], strict=True)]
    torch.testing.assert_close(values, torch.tensor(expected).double())
