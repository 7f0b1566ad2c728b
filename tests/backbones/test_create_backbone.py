"""Any timm model as an embedding network, and what goes wrong with one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from marginface.backbones import create_backbone, load_backbone_weights
from marginface.utils.errors import InputError, MissingInputError


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("iresnet18", {}),
        ("mobilefacenet", {}),
        ("miniresnet8", {}),
        ("miniresnet8_half", {"image_size": 56}),
        ("miniresnet8_pool", {"image_size": 80}),
        ("miniresnet8_pool", {"image_size": 97}),
        ("iresnet18", {"image_size": 64}),
        ("resnet10t", {"pool": "flatten"}),
        ("resnet10t", {"pool": "model", "norm": "ln"}),
        ("vit_tiny_patch16_224", {"norm": "ln"}),
        ("lcnet_050", {"pool": "flatten", "model": {"drop_rate": 0.1}}),
    ],
)
def test_embeds(name: str, settings: dict[str, Any]) -> None:
    backbone = create_backbone(name, embedding_size=64, dropout=0.1, **settings)
    size = settings.get("image_size", 112)
    embeddings = backbone(torch.randn(2, 3, size, size))
    assert embeddings.shape == (2, 64)
    embeddings.square().sum().backward()
    frozen = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert not frozen, "parameters without a gradient"


@pytest.mark.parametrize("name", ["iresnet18", "mobilefacenet", "miniresnet8", "resnet10t"])
def test_reduced_precision_ends_in_float32(name: str) -> None:
    backbone = create_backbone(name, embedding_size=64).eval()
    images = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        exact = backbone(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            reduced = backbone(images)
    assert reduced.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, reduced).min() > 0.99


@pytest.mark.parametrize("name", ["iresnet18", "mobilefacenet", "miniresnet8", "resnet10t"])
def test_wrong_image_size_is_a_sentence(name: str) -> None:
    backbone = create_backbone(name, embedding_size=64)
    with pytest.raises(InputError, match=r"built for 112x112 images, got a batch of shape .*128"):
        backbone(torch.randn(2, 3, 128, 128))


def test_a_size_the_model_cannot_take() -> None:
    with pytest.raises(InputError, match="cannot take 2x2 images|resnet10t"):
        create_backbone("vgg11", image_size=2)


def test_flattening_tokens() -> None:
    with pytest.raises(InputError, match="not a map to flatten; use backbone.pool=model"):
        create_backbone("vit_tiny_patch16_224", pool="flatten")


def test_unknown_name_and_argument() -> None:
    with pytest.raises(InputError, match="unknown backbone 'iresnet51'. Did you mean .*iresnet"):
        create_backbone("iresnet51")
    with pytest.raises(InputError, match="does not take .*dropp"):
        create_backbone("resnet10t", model={"dropp": 1})


def test_vit_has_no_batch_statistics() -> None:
    backbone = create_backbone("vit_tiny_patch16_224", norm="ln")
    names = [type(m).__name__ for m in backbone.modules()]
    assert not any(name.startswith("BatchNorm") for name in names)
    assert all(m.p == 0 for m in backbone.modules() if isinstance(m, torch.nn.Dropout))


class TestWeights:
    """Files to start from."""

    @pytest.mark.parametrize("kind", ["pth", "module", "ckpt", "safetensors"])
    def test_all_kinds_load(self, tmp_path: Path, kind: str) -> None:
        trained, fresh = create_backbone("miniresnet8"), create_backbone("miniresnet8")
        path = tmp_path / f"weights.{'pth' if kind == 'module' else kind}"
        state = trained.state_dict()
        if kind == "pth":
            torch.save(state, path)
        elif kind == "module":
            torch.save({f"module.{k}": v for k, v in state.items()}, path)
        elif kind == "ckpt":
            named = {f"backbone.{k}": v for k, v in state.items()}
            torch.save({"state_dict": named | {"head.weight": torch.zeros(1)}}, path)
        else:
            save_file(state, path)
        load_backbone_weights(fresh, path)
        assert all(
            torch.equal(a, b)
            for a, b in zip(state.values(), fresh.state_dict().values(), strict=True)
        )

    def test_another_backbone_lists_what_does_not_fit(self, tmp_path: Path) -> None:
        path = tmp_path / "other.pth"
        torch.save(create_backbone("miniresnet8_half").state_dict(), path)
        with pytest.raises(InputError, match=r"does not fit this backbone: 0 missing.*of another "):
            load_backbone_weights(create_backbone("miniresnet8"), path)
        with pytest.raises(InputError, match=r"missing \(conv1.weight.*unexpected \(stem"):
            load_backbone_weights(create_backbone("iresnet18"), path)

    def test_no_weights(self, tmp_path: Path) -> None:
        with pytest.raises(MissingInputError, match="no weights file"):
            load_backbone_weights(create_backbone("miniresnet8"), tmp_path / "absent.pth")
        (tmp_path / "text.pth").write_text("hello")
        with pytest.raises(InputError, match="not a readable weights file"):
            load_backbone_weights(create_backbone("miniresnet8"), tmp_path / "text.pth")
        torch.save({"a": 1}, tmp_path / "numbers.pth")
        with pytest.raises(InputError, match="is not a state dict"):
            load_backbone_weights(create_backbone("miniresnet8"), tmp_path / "numbers.pth")
