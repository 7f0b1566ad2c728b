"""Networks of other projects: recognized from files without a word, with their own numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from helpers.foreign_files import facts, file_of, filled, images, shapes_of
from marginface.backbones import load_pretrained
from marginface.backbones.flat_vit import TEMPLATE_POINTS
from marginface.backbones.ir import IRNet
from marginface.data.alignment.template import TEMPLATE
from marginface.utils.errors import InputError, MissingInputError

LIMIT = 2e-5  # relative; float32 against float64 is 2e-6 in the deepest

# Of each family the quick ones, and their cases of small variances; the others are slow.
QUICK = [
    ("adaface", "ir_18"), ("adaface", "ir_18.eps"), ("magface", "iresnet18"),
    ("magface", "iresnet18.eps"), ("insightface", "mbf"), ("insightface", "mbf.eps"),
    ("insightface", "vit_t_dp005_mask0"), ("insightface", "vit_t_dp005_mask0.eps"),
    ("evoirse", "evolve.IR_50"), ("evoirse", "evolve.IR_50.eps"),
    ("timmface", "vit_tiny_patch8_112"), ("timmface", "vit_small_patch8_gap_112"),
    ("timmface", "convnext_atto"), ("edgeface", "edgeface_xs_gamma_06"),
    ("edgeface", "edgeface_xxs"), ("facenet", "inception_resnet_v1"),
]  # fmt: skip
SLOW = [
    ("adaface", "ir_50"), ("adaface", "ir_101"), ("adaface", "ir_se_50"), ("magface", "iresnet50"),
    ("magface", "iresnet100"), ("insightface", "vit_s_dp005_mask_0"),
    ("insightface", "vit_b_dp005_mask_005"), ("cvlface", "vit_base"), ("cvlface", "vit_base.eps"),
    ("cvlface", "vit_base_kprpe"), ("evoirse", "evolve.IR_152"),
    ("evoirse", "curricularface.IR_101"), ("edgeface", "edgeface_base"),
]  # fmt: skip
NAMES = {"evoirse": None, "timmface": "timm-face"}
COLORS = {"adaface": "bgr", "magface": "bgr"}


def expected(golden: Path, family: str, case: str) -> np.ndarray:
    with np.load(golden / "foreign" / f"{family}.npz") as arrays:
        if family == "adaface":
            return arrays[f"{case}.embedding"] * arrays[f"{case}.norm"]
        return arrays[f"{case}.raw" if family == "facenet" else case]


def published(golden: Path, tmp_path: Path, family: str, case: str, number: int = 0) -> Path:
    """The file in which a family publishes its networks; `number` of its ways."""
    name = case.removesuffix(".eps")
    state = filled(shapes_of(golden, family, name), eps=case.endswith(".eps"))
    kind = facts(golden, family)["checkpoints"][number]
    return file_of(state, kind, tmp_path / f"net{kind['suffix']}")


def embedded(network: nn.Module, golden: Path, family: str, case: str) -> np.ndarray:
    size = facts(golden, family)["input"]["size"]
    arguments: tuple[Any, ...] = ()
    if "kprpe" in case:
        with np.load(golden / "foreign" / "cvlface.npz") as arrays:
            arguments = (torch.from_numpy(arrays["keypoints"]),)
    with torch.no_grad():
        return network(images(size), *arguments).numpy()


def check(golden: Path, tmp_path: Path, family: str, case: str) -> None:
    network, about = load_pretrained(published(golden, tmp_path, family, case))
    found, wanted = embedded(network, golden, family, case), expected(golden, family, case)
    assert np.linalg.norm(found - wanted) < LIMIT * np.linalg.norm(wanted)
    name = NAMES.get(family, family) or case.split(".")[0]
    assert about.family == name
    assert about.color == COLORS.get(family, "rgb")
    assert about.image_size == facts(golden, family)["input"]["size"]
    assert about.embedding_size == 512
    assert about.mean == ((0, 0, 0) if family == "magface" else (127.5,) * 3)
    assert not network.training


@pytest.mark.parametrize(("family", "case"), QUICK)
def test_embeddings_of_the_original(golden: Path, tmp_path: Path, family: str, case: str) -> None:
    check(golden, tmp_path, family, case)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "case"), SLOW)
def test_embeddings_of_larger_ones(golden: Path, tmp_path: Path, family: str, case: str) -> None:
    check(golden, tmp_path, family, case)


@pytest.mark.parametrize(
    ("family", "case", "ways"),
    [
        ("adaface", "ir_18", 1), ("magface", "iresnet18", 3), ("insightface", "mbf", 4),
        ("timmface", "convnext_atto", 2), ("facenet", "inception_resnet_v1", 2),
        ("cvlface", "ir18", 2),
    ],
)  # fmt: skip
def test_every_way_of_publishing(
    golden: Path, tmp_path: Path, family: str, case: str, ways: int
) -> None:
    for number in range(ways):
        _, about = load_pretrained(published(golden, tmp_path, family, case, number))
        assert about.family == NAMES.get(family, family)


def iresnet18(golden: Path) -> dict[str, torch.Tensor]:
    return filled(shapes_of(golden, "magface", "iresnet18"))


@pytest.mark.parametrize(
    ("prefix", "family"),
    [
        ("", "insightface"), ("module.", "insightface"), ("backbone.", "insightface"),
        ("_orig_mod.", "insightface"), ("features.module.", "magface"),
        ("module.features.", "magface"), ("features.", "magface"), ("net.", "cvlface"),
        ("model.net.", "cvlface"),
    ],
)  # fmt: skip
def test_the_prefix_tells_magface_from_insightface(
    golden: Path, tmp_path: Path, prefix: str, family: str
) -> None:
    torch.save({prefix + k: v for k, v in iresnet18(golden).items()}, tmp_path / "net.pth")
    _, about = load_pretrained(tmp_path / "net.pth")
    assert about.family == family
    assert about.color == ("bgr" if family == "magface" else "rgb")


def test_a_family_can_be_named(golden: Path, tmp_path: Path) -> None:
    torch.save(iresnet18(golden), tmp_path / "net.pth")
    network, about = load_pretrained(tmp_path / "net.pth", family="magface")
    assert about.family == "magface"
    assert about.std == (255, 255, 255)
    found = embedded(network, golden, "magface", "iresnet18")
    wanted = expected(golden, "magface", "iresnet18")
    assert np.linalg.norm(found - wanted) < LIMIT * np.linalg.norm(wanted)
    with pytest.raises(InputError, match="does not hold a network of adaface"):
        load_pretrained(tmp_path / "net.pth", family="adaface")
    with pytest.raises(InputError, match="unknown family 'magfce'"):
        load_pretrained(tmp_path / "net.pth", family="magfce")


@pytest.mark.parametrize(("words", "color"), [("BGR", "bgr"), ("RGB", "rgb"), (None, "rgb")])
def test_the_color_of_cvlface_is_beside_its_file(
    golden: Path, tmp_path: Path, words: str | None, color: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = published(golden, tmp_path, "cvlface", "ir18")
    if words is not None:
        content = {"conf": {"color_space": words, "name": "ir18"}}
        (tmp_path / "config.json").write_text(json.dumps(content))
    _, about = load_pretrained(path)
    assert about.color == color
    printed = capsys.readouterr()
    assert "a network of cvlface, because its names begin with input_layer.0.weight" in printed.out
    assert ("RGB is assumed" in printed.err) == (words is None)


def test_what_is_no_network(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no weights file"):
        load_pretrained(tmp_path / "none.pth")
    torch.save({"a.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="does not hold a network of a known family"):
        load_pretrained(tmp_path / "other.pth")
    state = iresnet18(golden)
    del state["layer3.0.conv1.weight"]
    state["layer2.0.conv1.weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(InputError, match="1 tensors missing.*1 tensors of another shape"):
        load_pretrained(tmp_path / "broken.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "broken.pth").read_bytes()[:5000])
    with pytest.raises(InputError, match="incomplete"):
        load_pretrained(tmp_path / "cut.pth")
    torch.save({"state_dict": iresnet18(golden), "x": nn.Linear(1, 1)}, tmp_path / "code.pth")
    with pytest.raises(InputError, match="would run code of the file"):
        load_pretrained(tmp_path / "code.pth")


def test_the_points_of_the_template_are_those_of_the_alignment() -> None:
    assert np.allclose(TEMPLATE_POINTS, TEMPLATE, atol=1e-3)


def test_ir_in_training_against_the_formulas() -> None:
    """The subsampling shortcut and the last normalization without gamma and beta are trained so."""
    torch.manual_seed(0)
    network = IRNet((1, 1, 1, 1), num_classes=8, img_size=32).double()
    x = torch.randn(6, 3, 32, 32, dtype=torch.float64)

    def norm(value: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        axes = [0, *range(2, value.ndim)]
        mean, variance = value.mean(axes, True), value.var(axes, correction=0, keepdim=True)
        out = (value - mean) / (variance + 1e-5).sqrt()
        if layer.weight is None:
            return out
        shape = [1, -1, *[1] * (value.ndim - 2)]
        return out * layer.weight.view(shape) + layer.bias.view(shape)  # type: ignore[union-attr]

    with torch.no_grad():
        conv, bn, prelu = network.input_layer
        h = nn.functional.prelu(
            norm(nn.functional.conv2d(x, conv.weight, padding=1), bn), prelu.weight
        )  # type: ignore[arg-type]
        for block in network.body:
            b = block.res_layer
            y = nn.functional.conv2d(norm(h, b[0]), b[1].weight, padding=1)
            y = nn.functional.prelu(norm(y, b[2]), b[3].weight)
            y = norm(nn.functional.conv2d(y, b[4].weight, stride=2, padding=1), b[5])
            short = h[:, :, ::2, ::2]
            if h.shape[1] != y.shape[1]:
                s = block.shortcut_layer
                short = norm(nn.functional.conv2d(short, s[0].weight), s[1])
            h = y + short
        end = network.output_layer
        wanted = norm(norm(h, end[0]).flatten(1) @ end[3].weight.T + end[3].bias, end[4])
        assert torch.allclose(network.train()(x), wanted)
    assert sum(p.numel() for p in network.output_layer[4].parameters()) == 0
