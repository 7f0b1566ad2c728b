"""The callback that makes up for a validation before which a run was stopped."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from marginface.training.steps import validates_after


class DueValidation(Callback):
    """Begins a resumed run with the validation that its checkpoint was to be followed by.

    A checkpoint of a step is written before the validation of that step. Without this a run that
    resumes from there would not know how good the network was: callbacks that keep the best one,
    or stop when nothing gets better, would go on as if that validation had never been.
    """

    def __init__(self) -> None:
        self._verified_step = 0

    def state_dict(self) -> dict[str, Any]:
        return {"verified_step": self._verified_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._verified_step = state_dict["verified_step"]

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._verified_step = trainer.global_step

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        step = trainer.global_step
        if step != self._verified_step and validates_after(trainer, step):
            loop = trainer.fit_loop.epoch_loop.val_loop
            loop.restarting = False  # it begins at its first batch
            trainer.validating = True
            loop.run()
            trainer.training = True
