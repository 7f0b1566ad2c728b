"""Every YAML option composes, is right, and says what it is for."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers.runs import compose
from marginface.backbones import create_backbone
from marginface.config.instantiate import build
from marginface.config.resolve import config_dir
from marginface.training.batch_norm import check_batch_norm, check_images_left
from marginface.training.config import check_config, train_problems
from marginface.utils.errors import InputError

# Options that set up a sweep or this machine are no part of a run.
GROUPS = ["backbone", "callbacks", "classifier", "data", "debug", "experiment", "head", "logger",
          "optimizer", "scheduler", "trainer"]  # fmt: skip
OPTIONS = [
    (group, path.stem) for group in GROUPS for path in sorted((config_dir() / group).glob("*.yaml"))
]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_is_right(group: str, option: str) -> None:
    assert (
        train_problems(
            compose(f"{group}={option}", "++data.root=somewhere", "++data.roots=[somewhere]")
        )
        == []
    )


@pytest.mark.parametrize(
    "path", sorted((config_dir() / "experiment").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_experiment_begins_with_its_command(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith(f"# python train.py experiment={path.stem}")


@pytest.mark.parametrize("name", ["x2softmax_ms1mv3_r50", "x2softmax_ms1mv3_r50_26epochs"])
def test_the_official_recipe_line_by_line(name: str) -> None:
    config = compose(f"experiment={name}", "data.root=somewhere")
    assert config["backbone"]["name"] == "iresnet50"
    assert config["backbone"]["embedding_size"] == 512
    assert config["backbone"]["dropout"] == 0.0
    head = {"name": "x2softmax", "scale": 64.0, "a": -0.9, "h": 0.0, "k": 0.65}
    assert config["head"] == head | {"margin_gradient": "straight_through", "loss": "cross_entropy"}
    optimizer = {key: config["optimizer"][key] for key in ("lr", "momentum", "weight_decay")}
    assert optimizer == {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    assert config["decay_bias_and_norm"] is True
    assert config["lr_base_size"] is None
    assert config["data"]["batch_size"] == 128
    assert config["trainer"]["gradient_clip_val"] == 5.0
    assert config["seed"] == 2048
    long = name.endswith("26epochs")
    assert config["trainer"]["max_epochs"] == (26 if long else 20)
    assert config["scheduler"]["milestones"] == ([8, 14, 20, 25] if long else [8, 14, 17, 19])
    assert config["scheduler"]["gamma"] == 0.1
    assert config["scheduler"]["warmup_epochs"] == 0.0


def test_one_call_reports_all_mistakes() -> None:
    config = compose()
    config["head"]["name"] = "arcfase"
    config["optimizer"]["lr"] = "fast"
    config["trainer"]["max_epoch"] = 3
    with pytest.raises(InputError, match=r"3 mistakes(.|\n)*arcface(.|\n)*lr(.|\n)*max_epochs"):
        check_config(config)


class Orthogonal(torch.optim.SGD):
    """An optimizer of one's own, which wants the groups of a training."""

    def __init__(self, params: list[dict[str, Any]], lr: float = 0.1) -> None:
        if not all(isinstance(group, dict) and len(group["params"]) > 3 for group in params):
            raise TypeError("not a training's groups")
        super().__init__(params, lr=lr)


def short_runs_only(*, total_steps: int, steps_per_epoch: int) -> Any:
    if total_steps > 100:
        raise ValueError("too long")
    return lambda step: 1.0


def test_parts_of_others_are_not_built_to_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose()
    here = Path(__file__).stem
    monkeypatch.setitem(sys.modules, here, sys.modules[__name__])
    config["optimizer"] = {"_target_": f"{here}.Orthogonal", "_partial_": True, "lr": 0.1}
    config["scheduler"] = {"_target_": f"{here}.short_runs_only", "_partial_": True}
    assert train_problems(config) == []


def test_missing_parts_are_named() -> None:
    config = compose()
    del config["head"]
    assert train_problems(config) == ["head is missing"]


def test_build_raises_what_the_constructor_raised(tmp_path: Path) -> None:
    node = {"_target_": "marginface.data.FolderDataset", "root": str(tmp_path / "absent")}
    with pytest.raises(FileNotFoundError, match="no folder"):
        build(node)


def test_ranges_of_the_classifier_are_among_the_mistakes() -> None:
    config = compose("classifier.sample_rate=2.0", "optimizer.lr=fast")
    with pytest.raises(InputError) as error:
        check_config(config)
    assert "2 mistakes" in str(error.value)
    assert "classifier.sample_rate must be in (0, 1], got 2.0" in str(error.value)
    config = compose("classifier.separate_file_above_mib=-1")
    with pytest.raises(InputError, match="separate_file_above_mib must not be negative, got -1"):
        check_config(config)


def test_the_readme_and_yaml_agree_on_group_members() -> None:
    promised = {
        "logger": {"csv", "wandb", "tensorboard", "mlflow", "many"},
        "callbacks": {"default", "early_stopping", "none"},
        "scheduler": {"multistep", "cosine", "poly", "constant", "trapezoidal"},
        "optimizer": {"sgd", "adamw"},
        "sweep": {"heads", "margins", "optuna"},
        "trainer": {"default", "cpu", "gpu", "ddp", "ddp_bf16", "ddp_gloo"}
        | {"class_parallel", "fsdp2"},
        "debug": {"fast", "overfit", "limit", "profile"},
    }
    for group, names in promised.items():
        assert {p.stem for p in (config_dir() / group).glob("*.yaml")} == names
    for path in config_dir().rglob("*.yaml"):
        yaml.safe_load(path.read_text())


def test_float32_precision_of_the_backbone_is_checked() -> None:
    config = compose("trainer=cpu", "trainer.float32_matmul_precision=tf32")
    with pytest.raises(
        InputError, match=r"trainer.float32_matmul_precision must be one of highest"
    ):
        check_config(config)
    assert compose("trainer=gpu")["trainer"]["float32_matmul_precision"] == "high"
    assert compose("trainer=ddp")["trainer"]["benchmark"] is True
    assert compose("trainer=cpu")["trainer"]["float32_matmul_precision"] == "highest"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.limit_train_batches=0", "limit_train_batches must not be 0; nothing would be"),
        ("trainer.limit_train_batches=0.0", "limit_train_batches must not be 0"),
        ("trainer.val_check_interval=0", "val_check_interval must not be 0; .*limit_val_batches"),
        ("trainer.check_val_every_n_epoch=0", "check_val_every_n_epoch must be at least 1, got 0"),
        ("trainer.accumulate_grad_batches=0", "accumulate_grad_batches must be at least 1, got 0"),
        ("lr_base_size=0", "lr_base_size: got 0"),
        ("seed=4294967296", r"seed must be in \[0, 2\^32\), got 4294967296"),
        ("backbone.embedding_size=-1", "backbone.embedding_size: got -1"),
        ("backbone.image_size=0", "backbone.image_size: got 0"),
    ],
)
def test_numbers_that_end_in_a_traceback_elsewhere(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_config(compose("trainer=cpu", override))


@pytest.mark.parametrize("epochs", ["-1", "0", "null"])
def test_a_run_without_an_end_is_an_error(epochs: str) -> None:
    message = "trainer.max_epochs must be at least 1.*trainer.max_steps ends a run earlier"
    with pytest.raises(InputError, match=message):
        check_config(compose("trainer=cpu", f"trainer.max_epochs={epochs}"))


def test_one_image_at_a_time_is_an_error_with_batch_norm() -> None:
    with pytest.raises(
        InputError, match=r"data.batch_size=4 over 2 processes x 2 .*backbone\..*2:"
    ):
        check_batch_norm(create_backbone("miniresnet8_half"), 1, 2, 2)
    with pytest.raises(InputError, match=r"faulty=skip\) and one is left .* raise data.batch_size"):
        check_images_left(create_backbone("miniresnet8_half"), 1)
    check_images_left(create_backbone("miniresnet8_half"), 2)
    check_batch_norm(create_backbone("miniresnet8_half"), 2, 2, 2)
    check_batch_norm(create_backbone("vit_tiny_patch16_224", pool="model", norm="ln"), 1, 2, 2)
