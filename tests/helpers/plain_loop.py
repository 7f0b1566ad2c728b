"""A Lightning run of our module on given float batches, for comparing it with other loops."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from marginface.heads import MarginHead
from marginface.training.module import FaceRecognizer

FloatBatch = tuple[Tensor, Tensor]


class GivenBatches(L.LightningDataModule):
    """Yields the given (images, labels) one after the other, indices added."""

    verification_sets: tuple[()] = ()

    def __init__(self, batches: list[FloatBatch]) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[Any]:
        batches = [(x, y, torch.arange(len(x))) for x, y in self.batches]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


class FromFloats(FaceRecognizer):
    """The module with images that are normalized already."""

    def network_input(self, images: Tensor, indices: Tensor) -> Tensor:
        return images


class _Losses(L.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.values.append(module.statistics.loss())


def train_steps(
    backbone: nn.Module,
    head: MarginHead,
    batches: list[FloatBatch],
    *,
    make_optimizer: Any,
    make_schedule: Any,
    gradient_clip_val: float | None = None,
    **trainer_settings: Any,
) -> list[float]:
    """Losses of one pass over the batches."""
    losses = _Losses()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        gradient_clip_val=gradient_clip_val,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[losses],
        **trainer_settings,
    )
    module = FromFloats(backbone, head, make_optimizer=make_optimizer, make_schedule=make_schedule)
    trainer.fit(module, datamodule=GivenBatches(batches))
    return losses.values
