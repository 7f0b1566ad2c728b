"""`python train.py`: one training run, from the composed configuration to result.json."""

import signal
import subprocess
from contextlib import nullcontext
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from omegaconf import DictConfig

from marginface.backbones import (
    checkpoint_activations,
    create_backbone,
    load_backbone_weights,
)
from marginface.callbacks import log_validation
from marginface.checkpoints import (
    AtomicCheckpointIO,
    BackgroundCheckpointIO,
    checkpoint_to_resume,
    read_checkpoint,
)
from marginface.classifier import ClassifierOptions, sharded
from marginface.classifier.memory import classifier_lines, classifier_memory
from marginface.cli.entry import hydra_command
from marginface.config import build, check_config, to_plain
from marginface.console import quiet_lightning, say
from marginface.data.datamodule import FaceDataModule
from marginface.data.sampling import micro_batch_size
from marginface.errors import InputError, PreemptedError
from marginface.figures import verification_figure
from marginface.hardware import has_bfloat16, keep_freed_memory
from marginface.heads import create_head
from marginface.heads.advisor import advise
from marginface.module import FaceRecognizer, parameter_count
from marginface.preemption import Preemption
from marginface.report import print_result
from marginface.runinfo import RunFolder, collect
from marginface.strategies import check_classifier, shares_classes
from marginface.tracking.wandb import log_images
from marginface.watch import lost_peers_named, watch_processes

_SECONDS_TO_END = 3.0


@hydra_command("train")
def main(config: DictConfig) -> None:
    """Train what the configuration describes."""
    train(to_plain(config))


def train(config: dict[str, Any]) -> dict[str, float]:
    """Carry out a training run; returns what result.json holds.

    Args:
        config: resolved configuration, see configs/train.yaml.

    Raises:
        InputError: anything the user can mend.
        NonFiniteLossError: the loss left the finite numbers.
    """
    check_config(config)
    quiet_lightning()
    watch_processes()
    L.seed_everything(config["seed"], verbose=False)
    datamodule: FaceDataModule = build(config["data"])
    description = {"config": config, "data": datamodule.fingerprint()}
    folder = RunFolder(config["paths"]["run_dir"])
    # Read before anything of this run is written; rank 0 writes the file only after training began.
    checkpoint = checkpoint_to_resume(config["resume"], folder, description)
    trainer = _build_trainer(config)
    if config["keep_freed_memory"] and trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    module = _build_module(config, datamodule, description, trainer)
    micro_batch_size(datamodule.batch_size, trainer.world_size, trainer.accumulate_grad_batches)
    if trainer.is_global_zero:
        _begin(config, datamodule, module, trainer, folder, fresh=checkpoint is None)
    if checkpoint is not None:
        say(f"going on from {checkpoint}")
        module.going_on_from = checkpoint
        # Lightning does so itself, but under FSDP2 only after the data is set up.
        datamodule.load_state_dict(read_checkpoint(checkpoint)[type(datamodule).__qualname__])
    try:
        with lost_peers_named():
            if checkpoint is None and config["validate_untrained"]:
                trainer.validate(module, datamodule, verbose=False)
                _keep(trainer, folder, _renamed(module.validation_metrics(), "val/", "untrained/"))
                module.results = {}
            trainer.fit(module, datamodule, ckpt_path=checkpoint)
            _finish(trainer, module, datamodule, folder)
    except PreemptedError as stop:
        if not trainer.is_global_zero:
            raise SystemExit(0) from stop  # the exit code is that of the first process
        raise
    except BaseException:
        _end_processes(trainer)
        raise
    finally:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Preemption):
                callback.restore()
    return folder.read_result()


def _build_module(
    config: dict[str, Any],
    datamodule: FaceDataModule,
    description: dict[str, Any],
    trainer: L.Trainer,
) -> FaceRecognizer:
    backbone_config = dict(config["backbone"])
    weights, color = backbone_config.pop("weights"), backbone_config.pop("color")
    backbone = create_backbone(**backbone_config)
    if weights is not None:
        load_backbone_weights(backbone, weights)
    if config["gradient_checkpointing"]:
        checkpoint_activations(backbone)
    if config["compile"]:
        backbone.compile()  # in place: the names of the weights stay
    options: ClassifierOptions = build(config["classifier"])
    check_classifier(options, trainer)
    ranks = (trainer.global_rank, trainer.world_size)
    with sharded(*ranks) if shares_classes(trainer) else nullcontext():
        head = create_head(
            **config["head"],
            embedding_size=backbone_config["embedding_size"],
            num_classes=datamodule.num_classes,
        )
    return FaceRecognizer(
        backbone,
        head,
        make_optimizer=build(_scaled_optimizer(config, datamodule.batch_size)),
        make_schedule=build(config["scheduler"]),
        augmentation=build(config["augmentation"]),
        decay_vectors=config["decay_vectors"],
        color=color,
        seed=config["seed"],
        channels_last=config["channels_last"],
        classifier=options,
        description=description,
    )


def _scaled_optimizer(config: dict[str, Any], batch_size: int) -> dict[str, Any]:
    """The optimizer node with its rate scaled linearly to the batch, when that is asked for."""
    node, per = dict(config["optimizer"]), config["learning_rate_per"]
    if per is not None:
        given = node["lr"]
        node["lr"] = given * batch_size / per
        say(
            f"learning rate {node['lr']:g} = optimizer.lr {given:g} x data.batch_size {batch_size} "
            f"/ learning_rate_per {per}"
        )
    return node


def _build_trainer(config: dict[str, Any]) -> L.Trainer:
    def parts(group: str) -> list[Any]:
        return [build(node) for node in (config[group] or {}).values() if node is not None]

    callbacks = parts("callbacks")
    checkpoints: CheckpointIO = AtomicCheckpointIO()
    if config["asynchronous_checkpoints"]:
        checkpoints = BackgroundCheckpointIO(checkpoints)
    plugins: list[Any] = [checkpoints]
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # marginface.preemption does it
    try:
        return build(
            config["trainer"],
            logger=parts("logger") or False,
            callbacks=callbacks,
            plugins=plugins,
            # Lightning would add its own where the configuration has none.
            enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"trainer: {error}") from error


def _begin(
    config: dict[str, Any],
    datamodule: FaceDataModule,
    module: FaceRecognizer,
    trainer: L.Trainer,
    folder: RunFolder,
    fresh: bool,
) -> None:
    head = module.head
    rows, width = head.num_classes * head.centres_per_class, head.embedding_size  # of all shards
    facts = {
        "world_size": trainer.world_size,
        "devices": trainer.num_devices,
        "precision": trainer.precision,
        "num_classes": datamodule.num_classes,
        "backbone_parameters": parameter_count([module.backbone]),
        "head_parameters": parameter_count([head]) + rows * width - head.weight.numel(),
    }
    info = collect(config, datamodule.fingerprint(), **facts)
    folder.begin(config, info)
    for logger in trainer.loggers:
        logger.log_hyperparams(config | {"runinfo": info})
    sets = [f"{v.name} ({len(v.same)} pairs)" for v in datamodule.verification_sets]
    print(
        f"{config['name']}: {len(datamodule.train_set)} images of {datamodule.num_classes} "
        f"identities, {datamodule.steps_per_epoch} steps an epoch; backbone "
        f"{parameter_count([module.backbone]) / 1e6:.2f} M parameters, head "
        f"{rows} x {width}; "
        f"verification on {', '.join(sets) or 'nothing'}\n"
        f"run folder {folder.path}"
    )
    parts = trainer.world_size if shares_classes(trainer) else 1
    batch = datamodule.batch_size // (1 if parts > 1 else trainer.world_size)
    device = trainer.strategy.root_device
    memory = classifier_memory(
        rows,
        width,
        batch,
        head.options,
        optimizer=config["optimizer"]["_target_"].rpartition(".")[2],
        world=parts,
        accumulates=trainer.accumulate_grad_batches > 1,
        device=device,
    )
    for line in classifier_lines(memory, head.num_classes, head.options, parts, device):
        print(f"classifier: {line}")
    if str(trainer.precision).startswith("bf16") and not has_bfloat16(device):
        print(
            f"trainer.precision={trainer.precision} is many times slower here than 32-true: this "
            "CPU has no instructions for bfloat16"
        )
    for line in advise(head, trainer.precision).lines(fresh):
        print(f"head {head.name}: {line}")


def _finish(
    trainer: L.Trainer, module: FaceRecognizer, datamodule: FaceDataModule, folder: RunFolder
) -> None:
    """Verify the final weights, unless that just happened; draw, write and print the result."""
    steps = trainer.global_step
    if datamodule.verification_sets and module.validated_step != steps:
        trainer.validate(module, datamodule, verbose=False)
        log_validation(trainer, module, steps)
    _keep(trainer, folder, {**module.final_metrics(), **module.validation_metrics()})
    if not trainer.is_global_zero:
        return
    figures = {}
    for name, result in module.results.items():
        figures[f"val/{name}"] = folder.figures / f"{name}.png"
        verification_figure(result, name, figures[f"val/{name}"])
    log_images(trainer.loggers, figures)
    for logger in trainer.loggers:
        logger.finalize("success")
    print_result(folder.read_result())
    print(f"run folder {folder.path}")


def _end_processes(trainer: L.Trainer) -> None:
    """End the processes this one started: they would wait for it in their next collective."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        launcher.kill(signal.SIGTERM)
        for process in launcher.procs:
            try:
                process.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:  # training only takes note of SIGTERM
                process.kill()


def _renamed(metrics: dict[str, float], prefix: str, other: str) -> dict[str, float]:
    return {other + key.removeprefix(prefix): value for key, value in metrics.items()}


def _keep(trainer: L.Trainer, folder: RunFolder, metrics: dict[str, float]) -> None:
    if trainer.is_global_zero:
        folder.add_result(metrics)
