"""One training run, from the resolved configuration to result.json."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from marginface.config.instantiate import build
from marginface.data.datamodule import FaceDataModule
from marginface.data.sampling import micro_batch_size
from marginface.runs.folder import RunFolder
from marginface.runs.result_table import print_result
from marginface.runs.status import note_status
from marginface.training.batch_norm import check_batch_norm
from marginface.training.build import build_module, build_trainer
from marginface.training.callbacks.preemption import Preemption
from marginface.training.callbacks.run_page import never_stopping, write_page
from marginface.training.callbacks.step_log import log_validation
from marginface.training.config import check_config
from marginface.training.head_start import HEAD_START, start_head
from marginface.training.loggers.wandb import log_page
from marginface.training.module import FaceRecognizer
from marginface.training.process_watch import lost_peers_named, watch_processes
from marginface.training.resume import checkpoint_to_resume, position
from marginface.training.starting_weights import with_network_of_file
from marginface.training.summary import begin_run
from marginface.utils.console import rank_zero_print, rank_zero_warn, silence_lightning
from marginface.utils.errors import PreemptedError, first_line
from marginface.utils.hardware import keep_freed_memory

_SECONDS_TO_END = 3.0
_INTERRUPTED = "interrupted by Ctrl-C"


def train(config: dict[str, Any]) -> dict[str, float]:
    """Carry out a training run; returns what result.json holds.

    Args:
        config: resolved configuration, see configs/train.yaml and `marginface.config.compose`.

    Raises:
        InputError: anything the user can fix.
        NonFiniteLossError: the loss left the finite numbers.
    """
    check_config(config)
    config = config | {"backbone": with_network_of_file(config["backbone"])}
    silence_lightning()
    watch_processes()
    L.seed_everything(config["seed"], verbose=False)
    datamodule: FaceDataModule = build(config["data"])
    description = {"config": config, "data": datamodule.fingerprint()}
    folder = RunFolder(config["paths"]["run_dir"])
    # Read before anything of this run is written; rank 0 writes the file only after training began.
    checkpoint = checkpoint_to_resume(config["resume"], folder, description)
    trainer = build_trainer(config)
    if config["keep_freed_memory"] and trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()
    module = build_module(config, datamodule, description, trainer)
    parts = trainer.world_size, trainer.accumulate_grad_batches
    micro_batch = micro_batch_size(datamodule.batch_size, *parts)
    check_batch_norm(module.backbone, micro_batch, *parts)
    if trainer.local_rank == 0:  # before the others take some
        datamodule.check_shared_memory(micro_batch, trainer.num_devices)
        _warn_of_workers(datamodule.num_workers * trainer.num_devices)
    weights, classes = (config["head"].get(key) for key in HEAD_START)
    # Then the first loss can be foretold, unless others are added to it.
    module.has_random_centers = checkpoint is None and weights is None and not module.extra_losses
    if checkpoint is None:
        module.begin_head = start_head(module.head, weights, classes)
    if trainer.is_global_zero:
        begin_run(config, datamodule, module, trainer, folder, untrained=module.has_random_centers)
    if checkpoint is not None:
        rank_zero_print(f"resuming from {checkpoint}")
        module.resumed_from = checkpoint
        datamodule.start_at(*position(checkpoint))
    try:
        with lost_peers_named():
            metrics = _fit(config, trainer, module, datamodule, folder, checkpoint)
    except PreemptedError as stop:
        if not trainer.is_global_zero:
            raise SystemExit(0) from stop  # the exit code is that of the first process
        _note_end(folder, stop)
        raise
    except BaseException as error:
        _end_processes(trainer)
        # Lightning ends an interrupted run with exit code 1 and says nothing.
        is_interrupted = isinstance(error.__context__, KeyboardInterrupt)
        if trainer.is_global_zero:
            _note_end(folder, KeyboardInterrupt(_INTERRUPTED) if is_interrupted else error)
        if is_interrupted:
            rank_zero_print(
                f"{_INTERRUPTED}; the same command with hydra.run.dir={folder.path} "
                f"{'resumes' if folder.last.is_file() else 'begins anew'}"
            )
            raise SystemExit(130) from None
        raise
    finally:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Preemption):
                callback.restore()
    # Other processes do not wait until the first one has written the file.
    return folder.read_result() if trainer.is_global_zero else metrics


def _warn_of_workers(number: int) -> None:
    processors = os.cpu_count() or 1
    if number > 4 * processors:
        rank_zero_warn(
            f"data.num_workers makes {number} processes on {processors} processors; they take long "
            "to start and wait for each other"
        )


def _fit(
    config: dict[str, Any],
    trainer: L.Trainer,
    module: FaceRecognizer,
    datamodule: FaceDataModule,
    folder: RunFolder,
    checkpoint: Path | None,
) -> dict[str, float]:
    """Verify the untrained network when asked for, train, verify and print the result."""
    untrained = {}
    if checkpoint is None and config["validate_untrained"]:
        trainer.validate(module, datamodule, verbose=False)
        metrics = module.verification.metrics().items()
        untrained = {f"untrained/{key.removeprefix('val/')}": value for key, value in metrics}
        _add_result(trainer, folder, untrained)
        module.verification.forget()
    trainer.fit(module, datamodule, ckpt_path=checkpoint)
    if datamodule.verification_sets and module.verification.after_steps != trainer.global_step:
        trainer.validate(module, datamodule, verbose=False)
        log_validation(trainer, module)
    result = {**module.statistics.last_logged, **module.verification.metrics()}
    _add_result(trainer, folder, result)
    if trainer.is_global_zero:
        _finish(trainer, module, folder)
    return untrained | result


def _finish(trainer: L.Trainer, module: FaceRecognizer, folder: RunFolder) -> None:
    """Write the page, close the loggers, print the result."""
    with never_stopping(folder.status):
        note_status(folder, "done", step=trainer.global_step, total_steps=trainer.global_step)
    write_page(folder)
    log_page(trainer.loggers, folder)
    for logger in trainer.loggers:
        logger.finalize("success")
    print_result(folder.read_result())
    print(f"run folder {folder.path}")
    print(f"page {folder.report}")


def _note_end(folder: RunFolder, error: BaseException) -> None:
    """Why a run ended before its time, in its folder and on its page.

    The error itself is on its way to the user; a full disk here must not take its place.
    """
    reason = first_line(error) or type(error).__name__
    with never_stopping(folder.status):
        note_status(folder, "stopped", reason=reason)
    write_page(folder)


def _add_result(trainer: L.Trainer, folder: RunFolder, metrics: dict[str, float]) -> None:
    if trainer.is_global_zero:
        folder.add_result(metrics)


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
