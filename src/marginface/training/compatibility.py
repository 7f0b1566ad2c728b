"""Embeddings that can be compared with those of an old network: `finetune.compatible_with`.

Backward-compatible training (Shen et al., arXiv 2003.11942): beside its own loss, a new network
gets the influence loss, that of a classifier whose fixed class centers are the old network's.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from marginface.heads import MarginHead
from marginface.inference.embedder import model_embedder
from marginface.training.center_files import read_center_file
from marginface.training.extra_losses import ExtraLoss, Start, open_beside
from marginface.training.head_start import CLASS_MEANS, assign_centers, class_means
from marginface.utils.console import rank_zero_print
from marginface.utils.distributed import largest_over_ranks, rank
from marginface.utils.errors import InputError
from marginface.utils.files import atomic_write


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

    def begin(self, start: Start) -> None:
        table = self._old_centers(start)
        if table.shape[1] != self.head.embedding_size:
            raise InputError(
                f"finetune.compatible_with={self.old} makes embeddings of {table.shape[1]} "
                f"numbers and the new network {self.head.embedding_size}; they can only be "
                f"compared with equal ones: set backbone.embedding_size={table.shape[1]}"
            )
        per_class = self.head.centers.centers_per_class
        self.head.to(start.device)
        assign_centers(self.head, F.normalize(table, dim=1).repeat_interleave(per_class, 0))
        start.datamodule.label_watchers.append(self.head.centers.know_labels)
        rank_zero_print(
            f"compatible with {self.old}: the influence loss compares with {len(table)} of its "
            "class centers"
        )

    def _old_centers(self, start: Start) -> Tensor:
        """(C, D) of all classes."""
        if self.centers != CLASS_MEANS:
            found = read_center_file(self.centers, self.head.embedding_size)
            if found.shape[:2] != (self.head.num_classes, 1):
                raise InputError(
                    f"finetune.compatible_centers={self.centers} has {found.shape[1]} centers for "
                    f"each of {len(found)} classes, and one for each of the data's "
                    f"{self.head.num_classes} is needed; class_means needs no file"
                )
            return found[:, 0]
        # All processes or none: those without the file would wait for the others.
        is_kept = start.resumed and self.kept.is_file()
        missing = torch.tensor(float(not is_kept), device=start.device)
        if not largest_over_ranks(missing):
            return self._read()
        file = open_beside("finetune.compatible_with", self.old, start.datamodule)
        embedder = model_embedder(file, flip=file.description.flip, devices=[str(start.device)])
        means = class_means(embedder, start.datamodule, self.head.num_classes, start.device)
        if rank() == 0:
            content = save({"centers": means.cpu().contiguous()})
            with atomic_write(self.kept, "wb") as out:
                out.write(content)
        return means

    def _read(self) -> Tensor:
        """The means that this run began with."""
        try:
            found = load_file(self.kept)["centers"]
        except (SafetensorError, KeyError) as error:
            raise InputError(
                f"{self.kept} is damaged ({error}); without it the run goes on with means that are "
                "computed again, equal but for the last digits: remove it"
            ) from error
        if len(found) != self.head.num_classes:
            raise InputError(f"{self.kept} is of another run: it has {len(found)} classes")
        return found

    def __call__(self, images: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
        return self.weight * self.head(embeddings, labels)
