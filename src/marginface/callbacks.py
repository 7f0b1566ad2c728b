"""What happens around the steps: metrics to the loggers, checkpoints, the first loss checked."""

import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint, ProgressBar

from marginface.checkpoints import BackgroundCheckpointIO
from marginface.console import say, warn
from marginface.data.loader import TimedLoader
from marginface.distributed import sum_over_ranks
from marginface.errors import InputError
from marginface.module import FaceRecognizer
from marginface.progress import ends_step, logs_step, steps_per_epoch

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
            _check_first_loss(loss, module.head.expected_first_loss())
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
            say(
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
    say(f"verification after {steps} steps: {accuracies}")


def log_to_all(trainer: L.Trainer, metrics: dict[str, float], step: int) -> None:
    """One row for every logger, on the first process."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step)


def _check_first_loss(loss: float, expected: float) -> None:
    say(f"first loss {loss:.2f}, expected of a fresh head {expected:.2f}")
    if abs(loss - expected) > FIRST_LOSS_TOLERANCE * expected:
        warn(
            f"the first loss {loss:.2f} is more than {FIRST_LOSS_TOLERANCE:.0%} away from the "
            f"{expected:.2f} that random class centres give: are labels, head weights and "
            "normalisation what you think they are?"
        )


def _callbacks(trainer: L.Trainer) -> list[Callback]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]


def save_checkpoint(trainer: L.Trainer, module: FaceRecognizer, path: Path) -> None:
    """Write a checkpoint and what lies beside it."""
    wait_for_checkpoints(trainer)  # or it would take what is written now for something old
    module.saving_to = path
    try:
        trainer.save_checkpoint(path, weights_only=False)
    finally:
        module.saving_to = None


def wait_for_checkpoints(trainer: L.Trainer) -> None:
    """Until what is written in the background is on disk."""
    writer = trainer.strategy.checkpoint_io
    if isinstance(writer, BackgroundCheckpointIO):
        writer.wait()


class LastCheckpoint(Checkpoint):
    """Writes checkpoints/last.ckpt every n optimizer steps, after each epoch and at the end.

    Always between two optimizer steps, so that a run goes on exactly where it stopped.
    """

    def __init__(self, dirpath: str, every_n_train_steps: int = 1000) -> None:
        if every_n_train_steps < 1:
            raise InputError(
                "callbacks.checkpoint.every_n_train_steps must be at least 1, "
                f"got {every_n_train_steps}"
            )
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_train_steps = every_n_train_steps

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(module, FaceRecognizer)
        if not ends_step(trainer, batch_idx):
            return
        step = trainer.global_step
        if (
            step % self.every_n_train_steps == 0
            or step % steps_per_epoch(trainer) == 0
            or step == trainer.max_steps
            or trainer.should_stop  # max_time and the like
        ):
            save_checkpoint(trainer, module, self.path)


class BestCheckpoint(Checkpoint):
    """Keeps checkpoints/best.ckpt: the highest mean accuracy over the verification sets."""

    def __init__(self, dirpath: str, monitor: str = "val/mean/accuracy") -> None:
        self.path = Path(dirpath) / "best.ckpt"
        self.monitor = monitor
        self.best = -float("inf")

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, FaceRecognizer)
        score = module.validation_metrics().get(self.monitor)
        # An untrained network is no result; a run without verification sets has last.ckpt.
        if score is not None and score > self.best and trainer.global_step > 0:
            self.best = score
            save_checkpoint(trainer, module, self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
