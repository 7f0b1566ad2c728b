"""The module and the trainer of a run, from its configuration."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.strategies import DDPStrategy

from marginface.backbones import checkpoint_activations, create_backbone
from marginface.backbones.factory import network_settings
from marginface.backbones.timm_hub import is_on_hub
from marginface.classifier import ClassifierOptions, Shard
from marginface.config.instantiate import build
from marginface.data.datamodule import FaceDataModule
from marginface.data.preprocessing import MIDDLE
from marginface.heads import MarginHead, create_head
from marginface.runs.folder import RunFolder
from marginface.training.callbacks.checkpoints import LastCheckpoint
from marginface.training.callbacks.due_validation import DueValidation
from marginface.training.checkpoints.writers import AtomicCheckpointIO, BackgroundCheckpointIO
from marginface.training.compatibility import Compatibility
from marginface.training.finetuning import FineTuning, own_settings
from marginface.training.head_start import CLASS_MEANS, HEAD_START
from marginface.training.module import FaceRecognizer
from marginface.training.starting_weights import load_starting_weights
from marginface.training.strategies import (
    check_classifier,
    shares_classes,
    with_precision_of,
)
from marginface.utils.arguments import argument_named_in
from marginface.utils.console import rank_zero_print
from marginface.utils.errors import InputError, first_line


def build_module(
    config: dict[str, Any],
    datamodule: FaceDataModule,
    description: dict[str, Any],
    trainer: L.Trainer,
) -> FaceRecognizer:
    """Backbone and head in the module that trains them.

    Args:
        description: config and data, stored in every checkpoint.

    Raises:
        InputError: parts that do not fit each other or the trainer.
    """
    node = config["backbone"]
    backbone = create_backbone(**network_settings(node))
    if node["weights"] is not None:
        load_starting_weights(backbone, node)
    finetuning = build_finetuning(config.get("finetune"))
    if finetuning.leaves_out and (node["weights"] is None or is_on_hub(node["weights"])):
        raise InputError(
            "finetune.save=adapters leaves the network out of checkpoints, so it must be in a file "
            f"that backbone.weights names, which is {node['weights']}; use finetune.save=all"
        )
    finetuning.prepare(backbone)
    if config["gradient_checkpointing"]:
        checkpoint_activations(backbone)
    if config["compile"]:
        backbone.compile()  # in place: the names of the weights stay
    options: ClassifierOptions = build(config["classifier"])
    check_classifier(options, trainer)
    options = with_precision_of(options, trainer)
    shard = None
    if shares_classes(trainer):
        shard = Shard(trainer.global_rank, trainer.world_size, datamodule.num_classes)
    head_settings = {
        **head_parameters(config["head"]),
        "embedding_size": node["embedding_size"],
        "num_classes": datamodule.num_classes,
        "seed": config["seed"],
        "shard": shard,
    }
    head = create_head(**head_settings, classifier=options)
    distillation = build(config["distillation"]) if config.get("distillation") else None
    margin_weight = 1.0 if distillation is None else distillation.margin_weight
    leaves_out = finetuning.resting_epochs() > 0 or margin_weight == 0
    if leaves_out and isinstance(trainer.strategy, DDPStrategy):
        # A backbone that rests, and centers without a loss, have no gradients to wait for. The
        # trainer is built before the module, so this cannot be an argument of its strategy.
        trainer.strategy._ddp_kwargs["find_unused_parameters"] = True
    extra_losses = [distillation] if distillation is not None else []
    options = replace(options, optimizer_in_backward=False)  # old centers are never stepped
    make_head = partial(create_head, **head_settings, classifier=options)
    extra_losses += _compatibility(config.get("finetune") or {}, config["paths"], make_head)
    return FaceRecognizer(
        backbone,
        head,
        make_optimizer=build(_optimizer_node(config, datamodule.batch_size)),
        make_schedule=build(config["scheduler"]),
        augmentation=build(config["augmentation"]),
        decay_bias_and_norm=config["decay_bias_and_norm"],
        finetuning=finetuning,
        extra_losses=extra_losses,
        margin_weight=margin_weight,
        color=node["color"],
        mean=node.get("mean", MIDDLE),
        std=node.get("std", MIDDLE),
        seed=config["seed"],
        channels_last=config["channels_last"],
        description=description,
    )


def build_finetuning(node: dict[str, Any] | None) -> FineTuning:
    """What is trained, from the `finetune` node; everything without one."""
    own = own_settings(node)
    return FineTuning() if not own else build(own)


def _compatibility(
    node: dict[str, Any], paths: dict[str, Any], make_head: Callable[[], MarginHead]
) -> list[Compatibility]:
    """The influence loss of an old network, where the `finetune` node names one."""
    if node.get("compatible_with") is None:
        return []
    return [
        Compatibility(
            node["compatible_with"],
            node.get("compatible_weight", 1.0),
            node.get("compatible_centers", CLASS_MEANS),
            make_head,
            RunFolder(paths["run_dir"]).path / "compatible_centers.safetensors",
        )
    ]


def head_parameters(node: dict[str, Any]) -> dict[str, Any]:
    """The node of a head without where its centers begin."""
    return {key: value for key, value in node.items() if key not in HEAD_START}


def scaled_rate(config: dict[str, Any], batch_size: int) -> float | None:
    """The learning rate, scaled linearly to the batch when that is asked for; None without one."""
    given, per = config["optimizer"].get("lr"), config["lr_base_size"]
    return given if given is None or per is None else given * batch_size / per


def _optimizer_node(config: dict[str, Any], batch_size: int) -> dict[str, Any]:
    node, rate = config["optimizer"], scaled_rate(config, batch_size)
    if rate is None or config["lr_base_size"] is None:
        return dict(node)
    rank_zero_print(
        f"learning rate {rate:g} = optimizer.lr {node['lr']:g} x data.batch_size {batch_size} "
        f"/ lr_base_size {config['lr_base_size']}"
    )
    return node | {"lr": rate}


def build_trainer(config: dict[str, Any]) -> L.Trainer:
    """Lightning's trainer with the callbacks, loggers and checkpoint writers of a run."""

    def parts(group: str) -> list[Any]:
        return [build(node) for node in (config[group] or {}).values() if node is not None]

    callbacks = parts("callbacks")
    if config.get("averaging"):
        # Before all others: what they write or measure after a step has the average of that step.
        callbacks.insert(0, build(config["averaging"]))
    callbacks.append(DueValidation())  # after those that log, whose rows it adds to
    callbacks.sort(key=lambda c: isinstance(c, LastCheckpoint))  # holds what the others have seen
    checkpoints: CheckpointIO = AtomicCheckpointIO()
    if config["async_checkpoints"]:
        checkpoints = BackgroundCheckpointIO(checkpoints)
    plugins: list[Any] = [checkpoints]
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # Preemption does it
    node = dict(config["trainer"])
    torch.set_float32_matmul_precision(node.pop("float32_matmul_precision", "highest"))
    try:
        return build(
            node,
            logger=parts("logger") or False,
            callbacks=callbacks,
            plugins=plugins,
            # Lightning would add its own where the configuration has none.
            enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        )
    except (ValueError, TypeError, MisconfigurationException) as error:
        name = argument_named_in(str(error), L.Trainer, node)
        where = "trainer" if name is None else f"trainer.{name}={node.get(name)}"
        raise InputError(f"{where}: {first_line(error)}") from error
