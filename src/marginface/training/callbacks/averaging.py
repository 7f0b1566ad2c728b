"""Exponential moving average of the backbone, by Lightning's callback."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn

from marginface.training.strategies import FullyShardedStrategy
from marginface.utils.arguments import WholeNumber
from marginface.utils.errors import InputError

_BACKBONE = "backbone."


class BackboneAverage(EMAWeightAveraging):
    """Averages the weights and statistics of the backbone; the averages are what is verified.

    They are what checkpoints hold as the network, and what a run ends with; the weights that are
    trained are beside them, so that a run resumes exactly. Class centers are not averaged: nothing
    but training needs them, and each process may have its own.

    Args:
        decay: share of the average that stays in every update, in (0, 1).
        every_n_steps: optimizer steps between updates.
        start_step: first step with an update; before, the average is where training began.

    Raises:
        InputError: a decay out of range.
    """

    def __init__(
        self,
        decay: float = 0.999,
        every_n_steps: WholeNumber = 1,
        start_step: int = 0,
    ) -> None:
        if not 0 < decay < 1:
            raise InputError(f"averaging.decay must be in (0, 1), got {decay}")
        if start_step < 0:
            raise InputError(f"averaging.start_step must not be negative, got {start_step}")
        super().__init__(
            decay=decay, update_every_n_steps=every_n_steps, update_starting_at_step=start_step
        )
        self.decay = decay

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if isinstance(trainer.strategy, FullyShardedStrategy):
            raise InputError(
                "averaging does not go with trainer=fsdp2: every process has a part of the weights"
            )
        self._device = trainer.strategy.root_device
        super().setup(trainer, _backbone_of(pl_module), stage)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step > self._latest_update_step and self.should_update(step_idx=step - 1):
            self._update(_backbone_of(pl_module))
            self._latest_update_step = step

    @torch.no_grad()
    def _update(self, module: L.LightningModule) -> None:
        """What torch's AveragedModel does, in few launches and without a look at the device.

        But for counts of batches, which are copied and not averaged.
        """
        average = self._average_model
        assert average is not None
        kept, current = (
            [*network.parameters(), *network.buffers()] for network in (average.module, module)
        )
        pairs = list(zip(kept, current, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        others = [pair for pair in pairs if not pair[0].is_floating_point()]
        # The first one takes the weights over.
        share = 1 - self.decay if self._latest_update_step else 1.0
        torch._foreach_lerp_([ours for ours, _ in floats], [new for _, new in floats], share)
        if others:
            torch._foreach_copy_([ours for ours, _ in others], [new for _, new in others])
        average.n_averaged += 1

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_epoch_end(trainer, _backbone_of(pl_module))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_end(trainer, _backbone_of(pl_module))

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, _backbone_of(pl_module))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_epoch_end(trainer, _backbone_of(pl_module))

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        whole = checkpoint["state_dict"]
        super().on_save_checkpoint(trainer, _backbone_of(pl_module), checkpoint)
        if "current_model_state" in checkpoint:
            checkpoint["current_model_state"] = _of_backbone(whole)
            checkpoint["state_dict"] = whole | checkpoint["state_dict"]

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        own = checkpoint | {"state_dict": _of_backbone(checkpoint["state_dict"])}
        super().on_load_checkpoint(trainer, _backbone_of(pl_module), own)


class _Backbone(L.LightningModule):
    """The backbone alone, under the name that it has in the whole module."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone


def _backbone_of(module: L.LightningModule) -> L.LightningModule:
    backbone: Any = module.backbone
    return _Backbone(backbone)


def _of_backbone(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name.startswith(_BACKBONE)}
