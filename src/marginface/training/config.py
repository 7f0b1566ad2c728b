"""The keys of a training configuration, and what is wrong with one."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from marginface.backbones.factory import backbone_problems, image_problems
from marginface.config.instantiate import build, target_problems
from marginface.heads import head_problems
from marginface.training.finetuning import COMPATIBILITY, own_settings
from marginface.training.head_start import CLASS_MEANS, HEAD_START
from marginface.training.starting_weights import FROM_FILE, with_network_of_file
from marginface.utils.arguments import WholeNumber, mapping_problems
from marginface.utils.errors import InputError, raise_problems
from marginface.utils.plugins import load_plugins

# The top of every training configuration, with its types; groups are checked by what they build.
TRAIN_KEYS: dict[str, Any] = {
    "name": str,
    "seed": int,
    "plugins": list[str],
    "resume": str,
    "validate_untrained": bool,
    "lr_base_size": WholeNumber | None,
    "decay_bias_and_norm": bool,
    "channels_last": bool,
    "compile": bool,
    "gradient_checkpointing": bool,
    "async_checkpoints": bool,
    "keep_freed_memory": bool,
    "data": dict,
    "augmentation": dict,
    "backbone": dict,
    "head": dict,
    "classifier": dict,
    "finetune": dict | None,
    "averaging": dict | None,
    "distillation": dict | None,
    "optimizer": dict,
    "scheduler": dict,
    "trainer": dict,
    "callbacks": dict | None,
    "logger": dict | None,
    "paths": dict,
}
_NOT_REQUIRED = {"plugins", "finetune", "averaging", "distillation"}
# What the code passes to what these groups build; a configuration must not.
PROVIDED = {"optimizer": ("params",), "scheduler": ("total_steps", "steps_per_epoch")}


def check_config(config: dict[str, Any]) -> None:
    """InputError with all mistakes of a resolved training configuration."""
    raise_problems(train_problems(config))


def train_problems(config: dict[str, Any]) -> list[str]:
    """What is wrong with a resolved training configuration, in words; empty when nothing is."""
    problems = mapping_problems("", config, TRAIN_KEYS, required=set(TRAIN_KEYS) - _NOT_REQUIRED)
    if problems:
        return problems
    try:
        load_plugins(config.get("plugins", []))  # what they define is looked for below
    except InputError as error:
        return [str(error)]
    if not 0 <= config["seed"] < 1 << 32:
        problems.append(f"seed must be in [0, 2^32), got {config['seed']}")
    problems += _head_problems(config["head"])
    problems += _backbone_problems(config["backbone"])
    problems += _finetune_problems(config.get("finetune"))
    for part in ("averaging", "distillation"):
        problems += _problems_of_part(part, config.get(part))
    teacher = (config.get("distillation") or {}).get("teacher")
    problems += _missing_model("distillation.teacher", teacher)
    problems += target_problems("data", config["data"])
    problems += _problems_of_part("augmentation", config["augmentation"])
    problems += _optimizer_problems(config["optimizer"])
    problems += _scheduler_problems(config["scheduler"])
    problems += _trainer_problems(config["trainer"])
    problems += _classifier_problems(config["classifier"])
    for group in ("callbacks", "logger"):
        for name, node in (config[group] or {}).items():
            if node is not None:
                problems += target_problems(f"{group}.{name}", node)
    return problems


def _backbone_problems(node: dict[str, Any]) -> list[str]:
    """Of the node, and of the network that a file of weights says."""
    if image_problems(node):
        return image_problems(node) if node.get("name") == FROM_FILE else backbone_problems(node)
    if node.get("name") == FROM_FILE and node["weights"] is None:
        return []  # the option itself is right; a training says that it needs a file
    try:
        return backbone_problems(with_network_of_file(node, quiet=True))
    except InputError as error:
        return [str(error)]


def _head_problems(node: dict[str, Any]) -> list[str]:
    """Of the head, and of where its centers begin."""
    start = {key: node[key] for key in HEAD_START if key in node}
    known = dict.fromkeys(HEAD_START, str | None)
    problems = mapping_problems("head", start, known, required=set())
    if start.get("classes") is not None and start.get("weights") in (None, CLASS_MEANS):
        problems.append("head.classes says which class of the file head.weights is which; give one")
    return problems + head_problems({k: v for k, v in node.items() if k not in HEAD_START})


def _finetune_problems(node: dict[str, Any] | None) -> list[str]:
    compatible = {key: value for key, value in (node or {}).items() if key in COMPATIBILITY}
    problems = mapping_problems("finetune", compatible, COMPATIBILITY, required=set())
    if compatible and compatible.get("compatible_with") is None:
        problems.append(
            "finetune.compatible_weight and compatible_centers belong to "
            "finetune.compatible_with=<old model>; add it"
        )
    problems += _missing_model("finetune.compatible_with", compatible.get("compatible_with"))
    centers = compatible.get("compatible_centers")
    if centers != CLASS_MEANS:
        problems += _missing_model("finetune.compatible_centers", centers)
    return problems + _problems_of_part("finetune", own_settings(node))


def _optimizer_problems(node: dict[str, Any]) -> list[str]:
    problems = target_problems("optimizer", node, PROVIDED["optimizer"])
    if not problems and _is_known(node):
        matrix, vector = (nn.Parameter(torch.zeros(size)) for size in ((2, 2), (2,)))
        try:
            build(node)([{"params": [matrix]}, {"params": [vector], "weight_decay": 0.0}])
        except (ValueError, RuntimeError) as error:  # "Invalid learning rate: -1", of torch
            problems.append(f"optimizer: {error}")
    return problems


def _scheduler_problems(node: dict[str, Any]) -> list[str]:
    problems = target_problems("scheduler", node, PROVIDED["scheduler"])
    if not problems and _is_known(node):
        try:
            build(node)(total_steps=20_000, steps_per_epoch=1000)  # as of any run
        except InputError as error:
            problems.append(str(error))
    return problems


def _is_known(node: dict[str, Any]) -> bool:
    """Whether a part may be built to see what it says; those of others may want the real run."""
    return str(node["_target_"]).startswith(("marginface.", "torch.optim."))


def _missing_model(where: str, path: Any) -> list[str]:
    is_given = isinstance(path, str) and set(path) != {"?"}
    missing = is_given and not Path(path).exists()
    return [f"{where}={path}: there is no such file or folder"] if missing else []


def _problems_of_part(where: str, node: dict[str, Any] | None) -> list[str]:
    """Of a node that may be absent and that is built of a few numbers."""
    problems = target_problems(where, node) if node else []
    if node and not problems:
        try:
            build(node)  # ranges are checked where they are defined
        except InputError as error:
            problems.append(str(error))
    return problems


FLOAT32_PRECISIONS = ("highest", "high", "medium")  # torch.set_float32_matmul_precision
_NOT_ZERO = {
    "limit_train_batches": "nothing would be trained; evaluate.py verifies a network as it is",
    "val_check_interval": "trainer.limit_val_batches=0 leaves verification out",
}
_LEAST = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1}  # of Lightning's trainer


def _trainer_problems(node: dict[str, Any]) -> list[str]:
    # All but this one are arguments of Lightning's trainer.
    rest = {key: value for key, value in node.items() if key != "float32_matmul_precision"}
    problems = target_problems("trainer", rest)
    epochs = node.get("max_epochs", 1)
    if not isinstance(epochs, int) or epochs < 1:
        problems.append(
            f"trainer.max_epochs must be at least 1, got {epochs}: the schedule needs to know the "
            "number of steps; trainer.max_steps ends a run earlier"
        )
    for key, least in _LEAST.items():
        value = node.get(key)
        if isinstance(value, int | float) and value < least:
            problems.append(f"trainer.{key} must be at least {least}, got {value}")
    for key, instead in _NOT_ZERO.items():
        if isinstance(node.get(key), int | float) and not node[key]:
            problems.append(f"trainer.{key} must not be 0; {instead}")
    precision = node.get("float32_matmul_precision", "highest")
    if precision not in FLOAT32_PRECISIONS:
        problems.append(
            f"trainer.float32_matmul_precision must be one of {', '.join(FLOAT32_PRECISIONS)}, "
            f"got {precision!r}"
        )
    return problems


def _classifier_problems(node: dict[str, Any]) -> list[str]:
    return _problems_of_part("classifier", node)
