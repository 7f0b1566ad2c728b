"""One training run, from the resolved configuration to result.json."""

import signal
import subprocess
from typing import Any

import lightning as L
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from marginface.config.instantiate import build
from marginface.data.datamodule import FaceDataModule
from marginface.data.sampling import micro_batch_size
from marginface.runs.checkpoint_file import read_checkpoint
from marginface.runs.folder import RunFolder
from marginface.runs.result_table import print_result
from marginface.training.build import _build_module, _build_trainer
from marginface.training.callbacks.preemption import Preemption
from marginface.training.callbacks.step_log import log_validation
from marginface.training.config import check_config
from marginface.training.figures import verification_figure
from marginface.training.loggers.wandb import log_images
from marginface.training.module import FaceRecognizer
from marginface.training.process_watch import lost_peers_named, watch_processes
from marginface.training.resume import checkpoint_to_resume
from marginface.training.summary import _begin
from marginface.utils.console import rank_zero_print, silence_lightning
from marginface.utils.errors import PreemptedError
from marginface.utils.hardware import keep_freed_memory

_SECONDS_TO_END = 3.0


def train(config: dict[str, Any]) -> dict[str, float]:
    """Carry out a training run; returns what result.json holds.

    Args:
        config: resolved configuration, see configs/train.yaml.

    Raises:
        InputError: anything the user can mend.
        NonFiniteLossError: the loss left the finite numbers.
    """
    check_config(config)
    silence_lightning()
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
        _begin(config, datamodule, module, trainer, folder, untrained=checkpoint is None)
    if checkpoint is not None:
        rank_zero_print(f"going on from {checkpoint}")
        module.resumed_from = checkpoint
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
