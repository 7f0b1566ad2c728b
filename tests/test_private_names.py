"""Private names of other libraries that this project uses: an upgrade that moves one fails here."""

import ast
import importlib
import inspect

import pytest
import torch

from helpers.paths import ROOT

OTHERS = ("hydra", "lightning", "lightning_utilities", "omegaconf", "timm", "torch", "torchmetrics")


def private_imports() -> list[tuple[str, str]]:
    """(module, name) of every import with a part that begins with an underscore."""
    found = set()
    for path in [*(ROOT / "src").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [(node.module, alias.name) for alias in node.names]
                found |= {(m, n) for m, n in names if m.split(".")[0] in OTHERS and _private(m, n)}
    return sorted(found)


def _private(module: str, name: str) -> bool:
    return any(part.startswith("_") and part != "__future__" for part in [*module.split("."), name])


# Private attributes that no import statement shows.
ATTRIBUTES = [
    ("lightning.pytorch.strategies.launchers.subprocess_script", "_launch_process_observer"),
    (
        "torch.nn.parallel",
        "DistributedDataParallel._set_params_and_buffers_to_ignore_for_model",
    ),
    ("lightning.pytorch.loops.training_epoch_loop", "_TrainingEpochLoop._broadcast_sigterm_tensor"),
    (
        "lightning.pytorch.trainer.connectors.signal_connector",
        "_SignalConnector.register_signal_handlers",
    ),
    ("omegaconf", "DictConfig._get_node"),
    ("omegaconf", "DictConfig._is_none"),
    ("torch", "_foreach_copy_"),
    ("torch", "_foreach_lerp_"),
    ("torch", "Tensor._values"),
    ("torch", "Tensor._indices"),
    ("torch", "Tensor._coalesced_"),
    ("torch", "nn.Module._compiled_call_impl"),
    ("torchvision.transforms.v2", "RandAugment._AUGMENTATION_SPACE"),
    ("torchvision.transforms.v2", "RandAugment._apply_image_or_video_transform"),
]


@pytest.mark.parametrize(("module", "name"), [*private_imports(), *ATTRIBUTES])
def test_is_still_there(module: str, name: str) -> None:
    value = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)


# Attributes of instances: looked for in the source of their class.
ON_INSTANCES = [
    ("lightning.pytorch.strategies", "ModelParallelStrategy", "_data_parallel_size"),
    ("lightning.pytorch", "Trainer", "_signal_connector"),
    ("lightning.pytorch.callbacks", "WeightAveraging", "_average_model"),
    ("lightning.pytorch.callbacks", "WeightAveraging", "_latest_update_step"),
    ("torch.utils.data", "DataLoader", "_iterator"),
    ("torchvision.transforms.v2._auto_augment", "_AutoAugmentBase", "_fill"),
    ("optuna.trial", "Trial", "_trial_id"),
]


@pytest.mark.parametrize(("module", "class_name", "attribute"), ON_INSTANCES)
def test_is_still_set(module: str, class_name: str, attribute: str) -> None:
    source = inspect.getsource(getattr(importlib.import_module(module), class_name))
    assert f"self.{attribute}" in source


def test_the_operator_that_tells_bfloat16() -> None:
    assert isinstance(torch.ops.mkldnn._is_mkldnn_bf16_supported(), bool)


def test_all_imports_are_found() -> None:
    found = private_imports()
    assert ("hydra._internal.utils", "get_args_parser") in found
    assert len(found) >= 3
