"""Transformers with flattened tokens in training: tokens that are left out, recomputation."""

import pytest
import torch
from torch import Tensor

from marginface.backbones import checkpoint_activations, create_backbone
from marginface.utils.errors import InputError

SMALL = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def vit(**model: object) -> torch.nn.Module:
    return create_backbone("flat_vit", embedding_size=16, image_size=32, model=SMALL | model)


def test_a_step_leaves_tokens_out() -> None:
    """Blocks see the tokens that are kept; behind them a learned token stands for the rest."""
    torch.manual_seed(0)
    network = vit(mask_ratio=0.25).train()
    torch.nn.init.normal_(network.mask_token)
    seen: list[Tensor] = []
    network.blocks[0].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    network.feature.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    network(torch.randn(3, 3, 32, 32)).square().sum().backward()
    kept, whole = seen[0], seen[1].view(3, 16, 32)
    assert kept.shape == (3, 12, 32)
    masked = (whole == network.mask_token).all(2)
    assert masked.sum(1).tolist() == [4, 4, 4]
    assert len(masked.unique(dim=0)) > 1, "each image leaves out others"
    assert bool(network.mask_token.grad.any())


def test_nothing_is_left_out_in_evaluation() -> None:
    network = vit(mask_ratio=0.5)
    plain = vit(mask_token=True)
    plain.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), plain.eval()(images))


def test_recomputed_activations_have_the_same_gradients() -> None:
    torch.manual_seed(0)
    network, images = vit(drop_path_rate=0.0), torch.randn(4, 3, 32, 32)
    gradients = []
    for again in (False, True):
        if again:
            checkpoint_activations(network)
        network.zero_grad()
        network(images).square().sum().backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


def test_parameters_that_no_step_uses_are_not_trained() -> None:
    network = vit(mask_token=True)
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_mistakes() -> None:
    with pytest.raises(InputError, match=r"mask_ratio must be in \[0, 1\), got 1"):
        vit(mask_ratio=1.0)
    with pytest.raises(InputError, match="does not go with keypoints"):
        vit(mask_ratio=0.1, keypoints=True)
