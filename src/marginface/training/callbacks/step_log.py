"""Logs steps and validations, and compares the first loss with the expected one."""

import sys
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ProgressBar

from marginface.data.loader import TimedLoader
from marginface.heads import MarginHead
from marginface.heads.analysis.first_loss import expected_first_loss, sizes_of
from marginface.pages.run_warnings import FIRST_LOSS_TOLERANCE
from marginface.training.callbacks.base import StepCallback
from marginface.training.module import FaceRecognizer
from marginface.training.parameter_groups import rate_of
from marginface.training.steps import logs_step, steps_per_epoch
from marginface.utils.console import rank_zero_print, rank_zero_warn
from marginface.utils.distributed import sum_over_ranks


class StepLog(StepCallback):
    """Sends one row per logged step to every logger, and validations to the row of their step.

    It runs before checkpoints are written, so a checkpoint never knows a step the log does not.
    Rows are numbered from 0: row n is the loss that optimizer step n was taken on.
    """

    def __init__(self) -> None:
        self._lr = 0.0
        self._batch_start = 0.0
        self._busy = self._wait = 0.0
        self._images = 0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for logger in trainer.loggers:
            # A killed run has logged steps after its last checkpoint; they are done again.
            if hasattr(logger, "drop_rows_from"):
                logger.drop_rows_from(trainer.global_step)

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._lr = rate_of(trainer.optimizers[0])
        self._batch_start = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._busy += time.perf_counter() - self._batch_start
        self._images += len(batch[0]) * trainer.world_size
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)

    def on_step_end(self, trainer: L.Trainer, module: FaceRecognizer) -> None:
        step = trainer.global_step - 1
        if logs_step(trainer, step):
            self._log_step(trainer, module, step)

    def _log_step(self, trainer: L.Trainer, module: FaceRecognizer, step: int) -> None:
        start = time.perf_counter()
        logged = module.statistics.log()  # a GPU has to finish for it all that has been queued
        self._busy += time.perf_counter() - start
        if step == 0 and module.has_random_centers:
            _check_first_loss(logged["train/loss"], module.head)
        metrics = {
            "epoch": step // steps_per_epoch(trainer),
            **logged,
            "train/lr": self._lr,
            **self._speed(trainer),
        }
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            metrics["train/grad_scale"] = float(scaler.get_scale())
        skipped = trainer.datamodule.train_set.skipped  # type: ignore[attr-defined]
        skipped = sum_over_ranks(skipped, module.device)
        if skipped:
            metrics["data/skipped_images"] = skipped
        log_to_all(trainer, metrics, step)
        # On the host: Lightning reads it again after every step, and a GPU would be waited for.
        loss = torch.tensor(logged["train/loss"])
        module.log("loss", loss, prog_bar=True, logger=False, rank_zero_only=True)
        _print_step(trainer, metrics, step)

    def _speed(self, trainer: L.Trainer) -> dict[str, float]:
        """Since the last logged step."""
        loader = trainer.train_dataloader
        if isinstance(loader, TimedLoader):
            self._wait += loader.wait_seconds
            loader.wait_seconds = 0.0
        seconds = self._busy + self._wait
        speed = {
            "speed/images_per_second": self._images / seconds,
            "speed/data_wait_share": self._wait / seconds,
        }
        self._busy = self._wait = 0.0
        self._images = 0
        return speed

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, FaceRecognizer)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            log_validation(trainer, module)


def log_validation(trainer: L.Trainer, module: FaceRecognizer) -> None:
    """Add the last validation to the row of the step before it, and print it."""
    results, steps = module.verification.results, module.verification.after_steps
    if not results or steps is None:
        return
    log_to_all(trainer, module.verification.metrics(), max(steps - 1, 0))
    accuracies = ", ".join(f"{n} {100 * r.accuracy:.2f} %" for n, r in results.items())
    rank_zero_print(f"verification after {steps} steps: {accuracies}")


def log_to_all(trainer: L.Trainer, metrics: dict[str, float], step: int) -> None:
    """One row for every logger, on the first process."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step)


def _print_step(trainer: L.Trainer, metrics: dict[str, float], step: int) -> None:
    """A line, unless a progress bar shows the loss; in a file that shows nothing."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if not (has_bar and sys.stdout.isatty()):
        rank_zero_print(
            f"step {step} epoch {metrics['epoch']} loss {metrics['train/loss']:.4f} accuracy "
            f"{metrics['train/accuracy']:.3f} lr {metrics['train/lr']:.3g} "
            f"{metrics['speed/images_per_second']:.0f} images/s"
        )


def _check_first_loss(loss: float, head: MarginHead) -> None:
    expected = expected_first_loss(head.margin, head.loss, **sizes_of(head))
    rank_zero_print(f"first loss {loss:.2f}, expected of an untrained head {expected:.2f}")
    if abs(loss - expected) > FIRST_LOSS_TOLERANCE * expected:
        rank_zero_warn(
            f"the first loss {loss:.2f} is more than {FIRST_LOSS_TOLERANCE:.0%} away from the "
            f"{expected:.2f} that random class centers give: are labels, head weights and "
            "normalization what you think they are?"
        )
