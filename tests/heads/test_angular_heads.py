"""ArcFace and combined: what happens where the margin takes an angle past pi."""

import pytest
import torch

from heads.references import combined
from marginface.heads import create_head
from marginface.utils.errors import InputError

COSINES = [1, 0.95, 0.8, 0.5, 0.2, 0, -0.2, -0.5, -0.9, -1]


@pytest.mark.parametrize("policy", ["none", "monotone", "easy"])
def test_combined_with_m2_alone_is_arcface(policy: str) -> None:
    sizes = {"embedding_size": 4, "num_classes": 3, "easy_margin": policy}
    arcface = create_head("arcface", margin=0.5, **sizes)
    same = create_head("combined", m1=1.0, m2=0.5, m3=0.0, **sizes)
    cosine = torch.linspace(-1, 1, 101, dtype=torch.float64)
    assert torch.equal(arcface.target_logit(cosine), same.target_logit(cosine))


def test_combined_uses_all_three_margins() -> None:
    head = create_head("combined", embedding_size=4, num_classes=3, m1=1.2, m2=0.3, m3=0.2)
    expected = [combined(c, 1.2, 0.3, 0.2) for c in COSINES]
    target = head.target_logit(torch.tensor(COSINES, dtype=torch.float64))
    torch.testing.assert_close(target, torch.tensor(expected, dtype=torch.float64))


def test_wrong_policies() -> None:
    with pytest.raises(
        InputError, match="easy_margin='hard': input should be 'none', 'monotone' or"
    ):
        create_head("arcface", embedding_size=4, num_classes=3, easy_margin="hard")
    with pytest.raises(InputError, match="defined for m1=1 only, got m1=1.5"):
        create_head("combined", embedding_size=4, num_classes=3, m1=1.5, easy_margin="easy")
