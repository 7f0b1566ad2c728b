"""What of a trained network is trained further, and how fast."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import marginface
from helpers.runs import compose
from marginface.backbones import create_backbone
from marginface.backbones.adapters import AdapterOptions, add_adapters, merge_adapters
from marginface.backbones.depth import parameter_depths, part_names
from marginface.heads import create_head
from marginface.runs.checkpoint_file import read_checkpoint
from marginface.training.config import train_problems
from marginface.training.finetuning import FineTuning, HeadFirst, LastStages, LayerDecay, Lora
from marginface.training.parameter_groups import (
    apply_factors,
    parameter_groups,
    print_parts,
    rate_of,
)
from marginface.training.run import train
from marginface.utils.errors import InputError

OURS = ["iresnet18", "ir", "mbf", "mobilefacenet", "miniresnet8", "inception_resnet_v1",
        "edgeface", "vit_tiny_patch16_224", "resnet10t"]  # fmt: skip


def start(tiny_run: list[str], folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
    train(compose(*tiny_run, *overrides, run_dir=folder))
    return state_of(folder)


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]


@pytest.fixture(scope="module")
def base(tiny_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network to go on from."""
    folder = tmp_path_factory.mktemp("base")
    start(tiny_run, folder, "trainer.max_steps=2", "seed=1", "data.seed=2048")
    return folder / "checkpoints" / "last.ckpt"


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {
        name
        for name, value in before.items()
        if name.startswith("backbone.") and not torch.equal(value, after[name])
    }


class TestDepths:
    @pytest.mark.parametrize("name", OURS)
    @pytest.mark.parametrize("coarse", [False, True])
    def test_every_network_has_an_order(self, name: str, coarse: bool) -> None:
        network = create_backbone(name, embedding_size=16)
        depths = parameter_depths(network, coarse=coarse)
        assert set(depths) == {n for n, _ in network.named_parameters()}
        assert set(depths.values()) == set(range(max(depths.values()) + 1)), "without a gap"
        assert max(depths.values()) >= 3
        # In the order in which an image passes through, which is that of the names.
        order = [depth for name, depth in depths.items() if "token" not in name]
        assert order[0] == 0
        assert order[-1] == max(order)

    def test_stages_and_blocks(self) -> None:
        network = create_backbone("iresnet18", embedding_size=16)
        coarse = part_names(parameter_depths(network, coarse=True))
        assert list(coarse.values()) == ["conv1 to prelu", "layer1.0 to layer1.1",
            "layer2.0 to layer2.1", "layer3.0 to layer3.1", "layer4.0 to layer4.1",
            "bn2 to features"]  # fmt: skip
        fine = parameter_depths(network, coarse=False)
        assert fine["layer1.0.conv1.weight"] == 1
        assert fine["layer1.1.conv1.weight"] == 2
        assert fine["fc.weight"] == 9


class TestGroups:
    def test_layer_decay_by_hand(self) -> None:
        network, head = (
            create_backbone("iresnet18"),
            create_head("arcface", num_classes=3, embedding_size=512),
        )
        groups = parameter_groups(network, head, True, LayerDecay(0.5))
        optimizer = torch.optim.SGD(groups, lr=0.1)
        apply_factors(optimizer)
        rate = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
        names = dict(network.named_parameters())
        assert rate[id(names["fc.weight"])] == pytest.approx(0.1)
        assert rate[id(names["layer4.1.conv1.weight"])] == pytest.approx(0.05)
        assert rate[id(names["conv1.weight"])] == pytest.approx(0.1 * 0.5**9)
        assert rate[id(head.weight)] == pytest.approx(0.1)

    def test_groups_of_ones_own(self) -> None:
        tuning = FineTuning(
            {
                "neck": {"match": r"backbone\.fc", "lr": 10, "weight_decay": 0.3},
                "stem": {"match": r"^backbone\.conv1", "train": False},
                "centers": {"match": "head", "lr": 2.0},
            }
        )
        network, head = (
            create_backbone("iresnet18"),
            create_head("arcface", num_classes=3, embedding_size=512),
        )
        tuning.prepare(network)
        optimizer = torch.optim.SGD(
            parameter_groups(network, head, False, tuning), lr=0.1, weight_decay=0.5
        )
        apply_factors(optimizer)
        of = {id(p): g for g in optimizer.param_groups for p in g["params"]}
        names = dict(network.named_parameters())
        assert (of[id(names["fc.weight"])]["lr"], of[id(names["fc.weight"])]["weight_decay"]) == (
            pytest.approx(1.0), 0.3,
        )  # fmt: skip
        assert of[id(names["fc.bias"])]["weight_decay"] == 0, "vectors are not decayed"
        assert id(names["conv1.weight"]) not in of
        assert of[id(head.weight)]["lr"] == pytest.approx(0.2)
        assert of[id(names["layer1.0.conv1.weight"])]["weight_decay"] == 0.5

    def test_the_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        network, head = (
            create_backbone("iresnet18"),
            create_head("arcface", num_classes=3, embedding_size=512),
        )
        tuning = LastStages(1, {"neck": {"match": "backbone.fc", "lr": 10}})
        tuning.prepare(network)
        print_parts(network, head, tuning, 0.1)
        rows = [r.split("│")[1:-1] for r in capsys.readouterr().out.splitlines() if "│" in r]
        table = {r[0].strip(): [c.strip() for c in r[1:]] for r in rows}
        assert table["layer3.0 to layer3.1"][1:] == ["frozen", "-"]
        assert table["layer4.0 to layer4.1"][1:] == ["all", "0.1"]
        assert table["bn2 to features"][2] == "0.1 to 1"
        assert table["class centers"] == ["1,536", "all", "0.1"]
        total = sum(p.numel() for p in network.parameters()) + 3 * 512
        assert sum(int(row[0].replace(",", "")) for row in table.values()) == total

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ("finetune.groups={a:{lr:1}}", "finetune.groups.a.match is missing"),
            ("finetune.groups={a:{match:'(',lr:1}}", "finetune.groups.a.match: missing )"),
            ("finetune.groups={a:{match:x,rate:1}}", "finetune.groups.a.rate"),
            ("+finetune.epochs=2", "finetune.epochs"),
        ],
    )
    def test_mistakes_are_sentences(self, override: str, words: str) -> None:
        assert words in "\n".join(train_problems(compose("finetune=full", override)))

    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            (["finetune=head_first", "finetune.epochs=0"], "finetune.epochs: got 0"),
            (["finetune=last_stages", "finetune.stages=-1"], "must not be negative"),
            (["finetune=layer_decay", "finetune.decay=0"], r"finetune.decay must be in (0, 1]"),
            (["finetune=lora", "finetune.rank=0"], "finetune.rank: got 0"),
        ],
    )
    def test_ranges(self, overrides: list[str], words: str) -> None:
        assert words in "\n".join(train_problems(compose(*overrides)))

    @pytest.mark.parametrize("group", [{"lr": 2.0}, {"train": False}])
    def test_what_is_nowhere(self, group: dict[str, Any]) -> None:
        tuning = FineTuning({"a": {"match": "nonesuch", **group}})
        with pytest.raises(InputError, match="nonesuch is in no name"):
            tuning.prepare(create_backbone("iresnet18"))

    def test_what_groups_cannot_do(self) -> None:
        tuning = FineTuning({"a": {"match": "head", "train": False}})
        with pytest.raises(InputError, match="class centers are always trained"):
            tuning.prepare(create_backbone("iresnet18"))
        for key in ("lr", "weight_decay"):
            with pytest.raises(InputError, match=f"groups.a.{key} must not be negative, got -1"):
                FineTuning({"a": {"match": "fc", key: -1}})

    def test_the_rate_that_is_logged(self) -> None:
        """That of the optimizer, whatever factors its groups have."""
        network = create_backbone("iresnet18")
        head = create_head("arcface", num_classes=3, embedding_size=512)
        for factor in (0.0, 5.0):
            tuning = FineTuning({"a": {"match": "head", "lr": factor}})
            optimizer = torch.optim.SGD(parameter_groups(network, head, True, tuning), lr=0.1)
            apply_factors(optimizer)
            assert rate_of(optimizer) == pytest.approx(0.1)

    def test_more_stages_than_there_are(self) -> None:
        with pytest.raises(InputError, match="has 5 before its neck"):
            LastStages(6).prepare(create_backbone("iresnet18"))


class TestRuns:
    def test_head_first_leaves_the_backbone(
        self, tiny_run: list[str], base: Path, tmp_path: Path
    ) -> None:
        """An epoch of 16 steps in which nothing of the network moves, its statistics included."""
        settings = [f"backbone.weights={base}", "finetune=head_first", "optimizer.lr=0.01"]
        before = read_checkpoint(base)["state_dict"]
        rested = start(tiny_run, tmp_path / "a", *settings, "trainer.max_steps=11")
        assert changed(before, rested) == set()
        assert not torch.equal(before["head.centers.weight"], rested["head.centers.weight"])
        went_on = start(tiny_run, tmp_path / "b", *settings, "trainer.max_steps=12")
        assert "backbone.stem.0.weight" in changed(before, went_on)
        assert "backbone.stem.1.running_mean" in changed(before, went_on)

    @pytest.mark.parametrize(
        ("name", "last"),
        [("convnext_atto", "model.stages.3"), ("mobilenetv3_small_050", "model.blocks.5"),
         ("resnet10t", "model.layer4"), ("vit_tiny_patch16_224", "model.blocks.11")],
    )  # fmt: skip
    def test_the_last_stage_of_timms_networks(self, name: str, last: str) -> None:
        """What is behind it, such as a last normalization, counts as neck."""
        network = create_backbone(name, embedding_size=8)
        LastStages(1).prepare(network)
        trained = {n for n, p in network.named_parameters() if p.requires_grad}
        assert any(n.startswith(last) for n in trained)
        stages = "model.layer" if "layer" in last else last.rpartition(".")[0]
        assert not {n for n in trained if n.startswith(stages) and not n.startswith(last)}

    def test_last_stages(self, tiny_run: list[str], base: Path, tmp_path: Path) -> None:
        settings = [f"backbone.weights={base}", "finetune=last_stages", "trainer.max_steps=2"]
        moved = changed(read_checkpoint(base)["state_dict"], start(tiny_run, tmp_path, *settings))
        assert {name.split(".")[1] for name in moved} == {"stages", "bn", "fc", "norm"}
        assert {name.split(".")[2] for name in moved if "stages" in name} == {"2"}

    def test_what_rests_keeps_its_statistics(self) -> None:
        network = create_backbone("iresnet18", embedding_size=8)
        tuning = LastStages(1)
        tuning.prepare(network)
        network.train()
        tuning.set_modes(network, resting=False)
        assert not network.layer1[0].bn1.training
        assert network.layer4[0].bn1.training
        assert network.features.training, "a gamma that is fixed by design is no frozen layer"
        tuning = HeadFirst(1)
        tuning.prepare(network)
        tuning.set_modes(network, resting=True)
        assert not network.features.training


class TestAdapters:
    @pytest.fixture(autouse=True)
    def _peft(self) -> None:
        pytest.importorskip("peft")

    @pytest.mark.parametrize("save", ["all", "adapters"])
    def test_a_run(self, tiny_run: list[str], base: Path, tmp_path: Path, save: str) -> None:
        settings = [f"backbone.weights={base}", "finetune=lora", "finetune.rank=2",
                    "trainer.max_steps=3", f"finetune.save={save}"]  # fmt: skip
        after = start(tiny_run, tmp_path, *settings)
        before = read_checkpoint(base)["state_dict"]
        own = [name for name in after if name.startswith("backbone.")]
        adapters = [name for name in own if "lora_" in name]
        assert adapters
        assert all(bool(after[n].any()) for n in adapters), "all of them have learned something"
        if save == "adapters":
            assert own == adapters
        else:
            frozen = {n.replace(".base_layer", ""): after[n] for n in own if "lora_" not in n}
            assert all(torch.equal(before[n], value) for n, value in frozen.items())
        # Opened, the adapters are in the weights: W + alpha / rank B A.
        model = marginface.load(tmp_path, checkpoint="last", device="cpu")
        network = model._embedder.networks[0]
        assert set(network.state_dict()) == {
            n.removeprefix("backbone.") for n in before if n.startswith("backbone.")
        }
        a, b = (after[f"backbone.fc.lora_{k}.default.weight"] for k in "AB")
        wanted = before["backbone.fc.weight"] + 32 / 2 * b @ a
        assert torch.allclose(network.state_dict()["fc.weight"], wanted, atol=1e-6)
        faces = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
        assert np.isfinite(model.embed_aligned(faces)).all()

    def test_the_base_is_named_when_it_is_gone(
        self, tiny_run: list[str], base: Path, tmp_path: Path
    ) -> None:
        moved = tmp_path / "moved.ckpt"
        moved.write_bytes(base.read_bytes())
        settings = [f"backbone.weights={moved}", "finetune=lora", "finetune.save=adapters",
                    "trainer.max_steps=1"]  # fmt: skip
        start(tiny_run, tmp_path / "run", *settings)
        moved.unlink()
        with pytest.raises(InputError, match="holds adapters only.*moved"):
            marginface.load(tmp_path / "run", checkpoint="last", device="cpu")

    def test_a_run_goes_on_from_merged_adapters(
        self, tiny_run: list[str], base: Path, tmp_path: Path
    ) -> None:
        settings = [f"backbone.weights={base}", "finetune=lora", "trainer.max_steps=3"]
        start(tiny_run, tmp_path / "lora", *settings)
        path = tmp_path / "lora" / "checkpoints" / "last.ckpt"
        still = [f"backbone.weights={path}", "trainer.max_steps=1", "optimizer.lr=1e-30"]
        found = start(tiny_run, tmp_path / "next", *still)
        merged = marginface.load(path, device="cpu")._embedder.networks[0]
        for name, value in merged.named_parameters():
            assert torch.allclose(found[f"backbone.{name}"], value, atol=1e-6), name

    def test_layers_by_name(self) -> None:
        network = create_backbone("vit_tiny_patch16_224", embedding_size=8)
        Lora(2, layers=r".*attn\.qkv").prepare(network)
        trained = [n for n, p in network.named_parameters() if p.requires_grad]
        assert trained
        assert all("attn.qkv.lora_" in name for name in trained)
        with pytest.raises(InputError, match="finetune.layers=nonesuch"):
            Lora(2, layers="nonesuch").prepare(create_backbone("iresnet18"))
        with pytest.raises(InputError, match="names blocks.0.norm1|names .*norm1 .LayerNorm"):
            Lora(2, layers=r".*norm1").prepare(create_backbone("vit_tiny_patch16_224"))
        with pytest.raises(InputError, match="finetune.layers="):
            Lora(2, layers="[")

    @pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "resnetv2_50x1_bit"])
    def test_merged_is_what_was_trained(self, name: str) -> None:
        """Also where names end alike, and layers that standardize their weights have no adapter."""
        torch.manual_seed(0)
        network = create_backbone(name, embedding_size=8, image_size=64).eval()
        options = AdapterOptions(2)
        add_adapters(network, options)
        for parameter in network.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.05)
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            adapted = network(images)
            merged = merge_adapters(network)(images)
        assert (adapted - merged).norm() < 1e-3 * adapted.norm()

    def test_adapters_alone_need_a_file(self, tiny_run: list[str], tmp_path: Path) -> None:
        settings = ["finetune=lora", "finetune.save=adapters", "trainer.max_steps=1"]
        with pytest.raises(InputError, match="must be in a file.*which is None; use finetune.save"):
            start(tiny_run, tmp_path, *settings)


def test_groups_are_as_before_without_finetuning() -> None:
    """The order of an optimizer's parameters is that of its state in older checkpoints."""
    network, head = (
        create_backbone("vit_tiny_patch16_224"),
        create_head("arcface", num_classes=3, embedding_size=512),
    )
    wanted: list[list[Any]] = []
    for part in (network, head):
        own = [p for p in part.parameters() if p.requires_grad]
        wanted += [[p for p in own if p.ndim > 1], [p for p in own if p.ndim <= 1]]
    found = parameter_groups(network, head, False)
    assert [[id(p) for p in g["params"]] for g in found] == [
        [id(p) for p in group] for group in wanted if group
    ]
