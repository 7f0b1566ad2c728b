"""Callbacks that write last.ckpt and best.ckpt."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from marginface.runs.folder import RunFolder
from marginface.training.callbacks.base import StepCallback
from marginface.training.checkpoints.writers import BackgroundCheckpointIO
from marginface.training.module import FaceRecognizer
from marginface.training.steps import ends_step, steps_per_epoch
from marginface.utils.errors import InputError


def save_checkpoint(trainer: L.Trainer, module: FaceRecognizer, path: Path) -> None:
    """Write a checkpoint and what belongs next to it."""
    wait_for_checkpoints(trainer)  # or it would take what is written now for something old
    module.saving_path = path
    try:
        trainer.save_checkpoint(path, weights_only=False)
    finally:
        module.saving_path = None


def wait_for_checkpoints(trainer: L.Trainer) -> None:
    """Until what is written in the background is on disk."""
    writer = trainer.strategy.checkpoint_io
    if isinstance(writer, BackgroundCheckpointIO):
        writer.wait()


def _is_between_steps(trainer: L.Trainer) -> bool:
    """Whether a run could resume from here."""
    fits = trainer.state.fn == "fit"
    return not fits or ends_step(trainer, trainer.fit_loop.epoch_loop.batch_idx)


class LastCheckpoint(StepCallback, Checkpoint):
    """Writes checkpoints/last.ckpt every n optimizer steps, after each epoch and at the end.

    Always between two optimizer steps, so that a run resumes exactly where it stopped. What a
    validation says of thresholds is kept beside, for the checkpoints of its step.
    """

    def __init__(self, dirpath: str, every_n_train_steps: int = 1000) -> None:
        if every_n_train_steps < 1:
            raise InputError(
                "callbacks.checkpoint.every_n_train_steps must be at least 1, "
                f"got {every_n_train_steps}"
            )
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_train_steps = every_n_train_steps
        self._saved_step: int | None = None
        self._ends_after_step = False

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        # trainer.max_time, for example, may ask to end the run within a step: it ends after that.
        # Checkpoint callbacks are called last, so all others have been asked.
        self._ends_after_step |= trainer.should_stop
        trainer.should_stop = self._ends_after_step and ends_step(trainer, batch_idx)
        super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)

    def on_step_end(self, trainer: L.Trainer, module: FaceRecognizer) -> None:
        step = trainer.global_step
        if (
            step % self.every_n_train_steps == 0
            or step % steps_per_epoch(trainer) == 0
            or step == trainer.max_steps
            or trainer.should_stop  # max_time and the like
        ):
            self._save(trainer, module)

    def _save(self, trainer: L.Trainer, module: FaceRecognizer) -> None:
        save_checkpoint(trainer, module, self.path)
        self._saved_step = trainer.global_step

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, FaceRecognizer)
        # Other callbacks were asked before: what ends a run by its accuracy has spoken.
        ends = trainer.state.fn == "fit" and trainer.should_stop
        if ends and _is_between_steps(trainer) and self._saved_step != trainer.global_step:
            self._save(trainer, module)
        verification = module.verification
        if trainer.is_global_zero and verification.thresholds and verification.after_steps:
            found = [vars(threshold) for threshold in verification.thresholds]
            RunFolder(self.path.parent.parent).add_thresholds(verification.after_steps, found)


class BestCheckpoint(Checkpoint):
    """Keeps checkpoints/best.ckpt: the highest mean accuracy over the verification sets."""

    def __init__(self, dirpath: str, monitor: str = "val/mean/accuracy") -> None:
        self.path = Path(dirpath) / "best.ckpt"
        self.monitor = monitor
        self.best = -float("inf")

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, FaceRecognizer)
        score = module.verification.metrics().get(self.monitor)
        # An untrained network is not a result; a run without verification sets has last.ckpt.
        if score is None or trainer.global_step == 0 or not _is_between_steps(trainer):
            return
        if score > self.best:
            self.best = score
            save_checkpoint(trainer, module, self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
