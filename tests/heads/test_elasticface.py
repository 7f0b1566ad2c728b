"""ElasticFace: the noise of the margins, its order in the plus variants, its state."""

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from helpers.small_heads import cosines
from marginface.heads import MarginHead, create_head
from marginface.utils.errors import InputError
from marginface.utils.seeded_random import hash_normal

HEADS = ["elasticface_arc", "elasticface_cos"]


def make(name: str, seed: int = 0, **parameters: object) -> MarginHead:
    torch.manual_seed(seed)
    return create_head(name, embedding_size=8, num_classes=5, **parameters).double()


def drawn_margins(head: MarginHead, rows: int = 4000) -> Tensor:
    """The margins of one training step, read off the target logits."""
    torch.manual_seed(1)
    embeddings, labels = torch.randn(rows, 8).double(), torch.randint(0, 5, (rows,))
    index = torch.arange(rows)
    cosine = cosines(head, embeddings)[index, labels]
    target = head.logits(embeddings, labels)[index, labels] / head.margin.scale
    if head.name == "elasticface_cos":
        return (cosine - target).detach()
    return (target.arccos() - cosine.arccos()).detach()[cosine.arccos() < 2.2]


def test_the_noise_is_normal() -> None:
    noise = hash_normal(torch.tensor(5), 200_000)
    assert kstest(noise.double().numpy(), "norm").pvalue > 0.01
    neighbors = torch.stack([noise[:-1], noise[1:]])
    assert abs(float(neighbors.corrcoef()[0, 1])) < 0.01
    assert torch.equal(noise[:7], hash_normal(torch.tensor(5), 7))
    assert (noise[:7] - hash_normal(torch.tensor(6), 7)).abs().max() > 0.1


@pytest.mark.parametrize("name", HEADS)
def test_margins_are_normal_around_the_margin(name: str) -> None:
    head = make(name)
    margins = drawn_margins(head)
    assert margins.mean().item() == pytest.approx(head.margin.margin, abs=0.005)
    assert margins.std().item() == pytest.approx(0.05, rel=0.05)


def test_every_step_and_every_head_draws_anew() -> None:
    head = make("elasticface_cos")
    first, second = drawn_margins(head), drawn_margins(head)
    assert (first - second).abs().max() > 0.01
    assert torch.equal(first, drawn_margins(make("elasticface_cos")))
    assert (first - drawn_margins(make("elasticface_cos", seed=3))).abs().max() > 0.01


COSINES = torch.tensor([0.1, 0.9, 0.5, 0.3, 0.7])
MARGINS = torch.tensor([0.45, 0.5, 0.55, 0.6, 0.65])


@pytest.mark.parametrize(
    ("compat", "expected"),
    [("paper", [0.65, 0.45, 0.55, 0.6, 0.5]), ("official_code", [0.5, 0.65, 0.55, 0.6, 0.45])],
)
def test_plus_gives_the_hardest_the_largest_margin(compat: str, expected: list[float]) -> None:
    head = make("elasticface_cos", plus=True, compat=compat)
    shuffled = MARGINS[[3, 0, 4, 1, 2]]
    torch.testing.assert_close(head.margin._sorted(shuffled, COSINES), torch.tensor(expected))  # type: ignore[operator]


def test_wrong_parameters() -> None:
    with pytest.raises(InputError, match="sigma=-1.0: input should be greater than or equal to 0"):
        make("elasticface_arc", sigma=-1.0)
    with pytest.raises(InputError, match="compat='code': input should be 'paper' or"):
        make("elasticface_arc", compat="code")
