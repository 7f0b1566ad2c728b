"""Embeddings that can be compared with those of an old network: `finetune.compatible_with`.

Backward-compatible training (Shen et al., arXiv 2003.11942): beside its own loss, a new network
gets the influence loss, that of a classifier whose fixed class centers are the old network's.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from marginface.data.datamodule import FaceDataModule
from marginface.heads import MarginHead
from marginface.inference.embedder import model_embedder
from marginface.training.center_files import read_center_file
from marginface.training.extra_losses import ExtraLoss, open_beside
from marginface.training.head_start import CLASS_MEANS, assign_centers, class_means
from marginface.utils.console import rank_zero_print
from marginface.utils.distributed import rank
from marginface.utils.errors import InputError


class Compatibility(ExtraLoss):
    """The influence loss against the class centers of an old network.

    Args:
        old: any model file.
        weight: of this loss beside that of the head.
        centers: "class_means": of the old network's embeddings of the training images, which any
            network has; or a file with its centers of these classes, in their order.
        make_head: a head like that of the run, for its margin; its state stays as it begins.
        kept: where the means are written, so that a resumed run has the same to the last digit.

    Raises:
        InputError: a weight that is not positive.
    """

    name = "compatibility"

    def __init__(
        self,
        old: str,
        weight: float,
        centers: str,
        make_head: Callable[[], MarginHead],
        kept: Path,
    ) -> None:
        if not weight > 0:
            raise InputError(f"finetune.compatible_weight must be above 0, got {weight}")
        self.old, self.weight, self.centers = old, weight, centers
        self.kept = kept
        # In evaluation mode it neither samples classes nor learns a state.
        self.head = make_head().eval().requires_grad_(False)

    def begin(self, datamodule: FaceDataModule, embedding_size: int, device: torch.device) -> None:
        table = self._old_centers(datamodule, device)
        if table.shape[1] != self.head.embedding_size:
            raise InputError(
                f"finetune.compatible_with={self.old} makes embeddings of {table.shape[1]} "
                f"numbers and the new network {self.head.embedding_size}; they can only be "
                f"compared with equal ones: set backbone.embedding_size={table.shape[1]}"
            )
        per_class = self.head.centers.centers_per_class
        self.head.to(device)
        assign_centers(self.head, F.normalize(table, dim=1).repeat_interleave(per_class, 0))
        rank_zero_print(
            f"compatible with {self.old}: the influence loss compares with {len(table)} of its "
            "class centers"
        )

    def _old_centers(self, datamodule: FaceDataModule, device: torch.device) -> Tensor:
        """(C, D) of all classes."""
        if self.kept.is_file():
            return load_file(self.kept)["centers"]
        if self.centers != CLASS_MEANS:
            found = read_center_file(self.centers, self.head.embedding_size)[:, 0]
            if len(found) != self.head.num_classes:
                raise InputError(
                    f"finetune.compatible_centers={self.centers} has {len(found)} classes and the "
                    f"data {self.head.num_classes}; class_means needs no file"
                )
            return found
        file = open_beside("finetune.compatible_with", self.old, datamodule)
        embedder = model_embedder(file, flip=file.description.flip, devices=[str(device)])
        means = class_means(embedder, datamodule, self.head.num_classes, device)
        if rank() == 0:
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            save_file({"centers": means.cpu().contiguous()}, self.kept)
        return means

    def __call__(self, images: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
        return self.weight * self.head(embeddings, labels)
