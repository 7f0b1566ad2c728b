"""Base class of callbacks that act between two optimizer steps."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from marginface.training.module import FaceRecognizer
from marginface.training.steps import ends_step


class StepCallback(Callback):
    """Calls `on_step_end` after whole optimizer steps, not after every micro-batch."""

    def on_step_end(self, trainer: L.Trainer, module: FaceRecognizer) -> None:
        """After an optimizer step; `trainer.global_step` counts it already."""

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(module, FaceRecognizer)
        if ends_step(trainer, batch_idx):
            self.on_step_end(trainer, module)
