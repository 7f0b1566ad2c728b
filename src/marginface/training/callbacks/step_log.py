"""What happens around the steps: metrics to the loggers, checkpoints, the first loss checked."""

import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, ProgressBar

from marginface.data.loader import TimedLoader
from marginface.heads.analysis.first_loss import expected_first_loss, sizes_of
from marginface.training.module import FaceRecognizer
from marginface.training.steps import ends_step, logs_step, steps_per_epoch
from marginface.utils.console import rank_zero_print, rank_zero_warn
from marginface.utils.distributed import sum_over_ranks

FIRST_LOSS_TOLERANCE = 0.30


class StepLog(Callback):
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
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]
        self._batch_start = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(module, FaceRecognizer)
        self._busy += time.perf_counter() - self._batch_start
        self._images += len(batch[0]) * trainer.world_size
        if not ends_step(trainer, batch_idx):
            return
        step = trainer.global_step - 1
        if logs_step(trainer, step):
            self._log_step(trainer, module, step)

    def _log_step(self, trainer: L.Trainer, module: FaceRecognizer, step: int) -> None:
        loss = module.last_loss = module.statistics.loss()
        module.step_metrics = module.statistics.metrics()
        if step == 0:
            head = module.head
            _check_first_loss(loss, expected_first_loss(head.margin, head.loss, **sizes_of(head)))
        loader = trainer.train_dataloader
        if isinstance(loader, TimedLoader):
            self._wait += loader.wait_seconds
            loader.wait_seconds = 0.0
        seconds = self._busy + self._wait
        metrics = {
            "epoch": step // steps_per_epoch(trainer),
            "train/loss": loss,
            **module.step_metrics,
            "train/lr": self._lr,
            "speed/images_per_second": self._images / seconds,
            "speed/data_wait_share": self._wait / seconds,
        }
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            metrics["train/grad_scale"] = float(scaler.get_scale())
        skipped = trainer.datamodule.train_set.skipped  # type: ignore[attr-defined]
        skipped = sum_over_ranks(skipped, module.device)
        if skipped:
            metrics["data/skipped_images"] = skipped
        self._busy = self._wait = 0.0
        self._images = 0
        log_to_all(trainer, metrics, step)
        module.log("loss", loss, prog_bar=True, logger=False, rank_zero_only=True)
        # A progress bar shows nothing in a file.
        has_bar = any(isinstance(c, ProgressBar) for c in _callbacks(trainer))
        if not (has_bar and sys.stdout.isatty()):
            rank_zero_print(
                f"step {step} epoch {metrics['epoch']} loss {loss:.4f} accuracy "
                f"{metrics['train/accuracy']:.3f} lr {self._lr:.3g} "
                f"{metrics['speed/images_per_second']:.0f} images/s"
            )

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, FaceRecognizer)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            log_validation(trainer, module, trainer.global_step)


def log_validation(trainer: L.Trainer, module: FaceRecognizer, steps: int) -> None:
    """Add the validation after `steps` steps to the row of the last of them, and say it."""
    module.validated_step = steps
    if not module.results:
        return
    log_to_all(trainer, module.validation_metrics(), max(steps - 1, 0))
    accuracies = ", ".join(f"{n} {100 * r.accuracy:.2f} %" for n, r in module.results.items())
    rank_zero_print(f"verification after {steps} steps: {accuracies}")


def log_to_all(trainer: L.Trainer, metrics: dict[str, float], step: int) -> None:
    """One row for every logger, on the first process."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step)


def _check_first_loss(loss: float, expected: float) -> None:
    rank_zero_print(f"first loss {loss:.2f}, expected of a fresh head {expected:.2f}")
    if abs(loss - expected) > FIRST_LOSS_TOLERANCE * expected:
        rank_zero_warn(
            f"the first loss {loss:.2f} is more than {FIRST_LOSS_TOLERANCE:.0%} away from the "
            f"{expected:.2f} that random class centers give: are labels, head weights and "
            "normalization what you think they are?"
        )


def _callbacks(trainer: L.Trainer) -> list[Callback]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]
