"""Losses beside that of the head."""

from typing import NamedTuple

import torch
from torch import Tensor

from marginface.data.datamodule import FaceDataModule
from marginface.inference.model_file import ModelFile
from marginface.inference.open_model import open_model
from marginface.utils.errors import InputError


def open_beside(where: str, path: str, datamodule: FaceDataModule) -> ModelFile:
    """The file of a network that sees the same images as the one that is trained.

    Args:
        where: the setting that names it, for messages.

    Raises:
        InputError: a file that is no network, or of one that takes images of another size.
    """
    file, size = open_model(path), datamodule.train_set.image_size
    if file.input.aligned_size != size:
        raise InputError(
            f"{where}={path} takes images of {file.input.aligned_size} pixels, and this run has "
            f"{size}; set backbone.image_size={file.input.aligned_size}"
        )
    return file


class Start(NamedTuple):
    """What a loss is told when training begins.

    Attributes:
        datamodule: of the run.
        embedding_size: D.
        device: on which the backbone is.
        resumed: whether the run resumes from a checkpoint of its own.
    """

    datamodule: FaceDataModule
    embedding_size: int
    device: torch.device
    resumed: bool


class ExtraLoss:
    """A loss of the embeddings of a step that is added to that of the head.

    Attributes:
        name: under which it is logged, as train/<name>_loss.
    """

    name: str

    def begin(self, start: Start) -> None:
        """When training begins, or resumes.

        Raises:
            InputError: what it compares with does not fit the backbone.
        """

    def __call__(self, images: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of a batch.

        Args:
            images: uint8 (B, 3, S, S) RGB, augmented.
            embeddings: (B, D) of them, with a gradient.
            labels: (B,).
        """
        raise NotImplementedError
