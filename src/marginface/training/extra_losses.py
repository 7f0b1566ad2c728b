"""Losses beside that of the head."""

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from marginface.training.module import FaceRecognizer


class ExtraLoss:
    """A loss of the embeddings of a step that is added to that of the head.

    Attributes:
        name: under which it is logged, as train/<name>_loss.
    """

    name: str

    def begin(self, module: "FaceRecognizer") -> None:
        """Before the first step, when the module is on its device.

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
