"""The LightningDataModule: splits, verification sets, loaders over global batches, resuming."""

from collections.abc import Callable
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from marginface.data.dataset import FaceDataset, Subset
from marginface.data.device_copies import DeviceCopies
from marginface.data.image_dataset import Batch, Labels
from marginface.data.loader import batch_loader
from marginface.data.pairs.verification_sets import (
    SampledPairs,
    VerificationSet,
    load_pairs,
    split_identities,
)
from marginface.data.sampling import (
    ClassBalancedOrder,
    EpochOrder,
    EvaluationSampler,
    GlobalBatchSampler,
    GroupedOrder,
    ShuffledOrder,
    steps_per_epoch,
)
from marginface.data.shared_memory import batch_buffers_bytes, check_shared_memory
from marginface.utils.arguments import NotNegativeInt, WholeNumber
from marginface.utils.console import rank_zero_print
from marginface.utils.errors import InputError
from marginface.utils.hardware import queue_to

SamplerName = Literal["shuffle", "class_balanced", "grouped"]


class FaceDataModule(L.LightningDataModule):
    """Training faces and verification sets.

    Args:
        dataset: all faces there are.
        name: of the data, for run names.
        root, roots: where `dataset` came from; only the config refers to them.
        pairs: files to verify on, see `load_pairs`. With them every identity is trained on.
        pairs_root: folder of the images that pair lists name.
        val_identities: without pair files, the number of identities to hold out and to draw pairs
            from; null holds out one in ten, at most 100; 0 trains on all and verifies nothing.
        val_pairs: pairs to draw from them, half genuine, half impostor.
        batch_size: images per optimizer step, over all processes and accumulation steps.
        eval_batch_size: images per forward pass and process in validation.
        num_workers: decoding processes for each training process.
        sampler: `shuffle` shows every image once an epoch; `grouped` too, with images_per_class
            of an identity next to each other; `class_balanced` makes batches of
            batch_size / images_per_class identities.
        images_per_class: for the latter two.
        limit_images: train on the first so many images only; null takes all.
        seed: decides the order, the held-out identities and their pairs.

    Raises:
        InputError: too few identities, or a pair file that cannot be read.
    """

    def __init__(
        self,
        dataset: FaceDataset,
        *,
        name: str,
        root: str | None = None,
        roots: list[str] | None = None,
        pairs: list[str] | None = None,
        pairs_root: str | None = None,
        val_identities: NotNegativeInt | None = None,
        val_pairs: int = 3000,
        batch_size: WholeNumber = 128,
        eval_batch_size: WholeNumber = 128,
        num_workers: NotNegativeInt = 2,
        sampler: SamplerName = "shuffle",
        images_per_class: WholeNumber = 4,
        limit_images: WholeNumber | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.name = name
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.start = (0, 0)  # epoch and step in it
        # Images of each training batch of a process; None for loaders that are not made here.
        self._micro_batch: int | None = None
        # Told the labels of each training batch, on the device and on the host, and whether every
        # process has as many; they must not be changed after that.
        self.label_watchers: list[Callable[[Tensor, Tensor, bool], None]] = []
        self.train_set, self.verification_sets = _split(
            dataset, list(pairs or []), pairs_root, val_identities, val_pairs, seed
        )
        if limit_images is not None:
            if limit_images < 1:
                raise InputError(f"data.limit_images must be at least 1, got {limit_images}")
            self.train_set = Subset(
                self.train_set, np.arange(min(limit_images, len(self.train_set)))
            )
        if eval_batch_size < 1 or num_workers < 0:
            raise InputError(
                f"data.eval_batch_size must be at least 1 and data.num_workers at least 0, got "
                f"{eval_batch_size} and {num_workers}"
            )
        if self.train_set.num_classes < 2:
            raise InputError(
                f"{dataset.where} leaves {self.train_set.num_classes} identity to train on "
                f"(num_classes={self.train_set.num_classes}); training needs at least 2"
            )
        if not 1 <= batch_size <= len(self.train_set):
            raise InputError(
                f"data.batch_size={batch_size} must be between 1 and the {len(self.train_set)} "
                "training images"
            )
        self.order = _order(sampler, self.train_set.labels, batch_size, images_per_class)

    @property
    def num_classes(self) -> int:
        """Identities to train on."""
        return self.train_set.num_classes

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch, before any limit of the trainer."""
        return steps_per_epoch(self.order.length, self.batch_size)

    def check_shared_memory(self, micro_batch: int, processes: int) -> None:
        """InputError when the batches of all loaders do not fit into shared memory together.

        Args:
            micro_batch: images in a training batch of a process.
            processes: on this machine.
        """
        verified = self.eval_batch_size if self.verification_sets else 0
        needed = processes * sum(
            batch_buffers_bytes(self.num_workers, images, self.train_set.image_size)
            for images in (micro_batch, verified)
        )
        check_shared_memory(
            needed,
            f"data.num_workers={self.num_workers} (batches of {micro_batch} to train, "
            f"data.eval_batch_size={self.eval_batch_size} to verify, {processes} processes)",
        )

    def fingerprint(self) -> dict[str, Any]:
        """What a resumed run must find unchanged."""
        return {
            "train": self.train_set.fingerprint(),
            "verification": {v.name: v.fingerprint() for v in self.verification_sets},
        }

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        assert trainer is not None
        sampler = GlobalBatchSampler(
            self.order,
            self.batch_size,
            seed=self.seed,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            accumulate=trainer.accumulate_grad_batches,
            start=self.start,
        )
        self._micro_batch = sampler.micro_batch
        device = trainer.strategy.root_device
        return batch_loader(
            self.train_set,
            sampler,
            sampler.micro_batch,
            num_workers=self.num_workers,
            copies=DeviceCopies(device) if device.type == "cuda" else None,
            persistent=True,
        )

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Queue copies of what is still here; what depends on labels is decided on the host."""
        images, labels, indices = batch
        assert self.trainer is not None
        on_device = queue_to(device, labels)
        if not self.trainer.training:
            return queue_to(device, images), on_device, queue_to(device, indices)
        equal_parts = self._micro_batch is not None and not self.train_set.may_skip
        if equal_parts and len(labels) != self._micro_batch:  # others count on it
            raise InputError(
                f"{self.train_set.where} gave {len(labels)} images for a batch of "
                f"{self._micro_batch}; a dataset that leaves images out has to say so: let its "
                "`may_skip` be True"
            )
        for watch in self.label_watchers:
            watch(on_device, labels, equal_parts)
        return queue_to(device, images), on_device, indices

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        trainer = self.trainer
        assert trainer is not None
        return [
            batch_loader(
                verification,
                EvaluationSampler(
                    len(verification),
                    self.eval_batch_size,
                    rank=trainer.global_rank,
                    world_size=trainer.world_size,
                ),
                self.eval_batch_size,
                num_workers=self.num_workers,
            )
            for verification in self.verification_sets
        ]

    def start_at(self, epoch: int, step: int) -> None:
        """Begin with optimizer step `step` of an epoch, as a resumed run does."""
        self.start = (epoch, step)


def _order(
    sampler: SamplerName, labels: Labels, batch_size: int, images_per_class: int
) -> EpochOrder:
    if sampler == "class_balanced":
        return ClassBalancedOrder(labels, batch_size, images_per_class)
    return (
        GroupedOrder(labels, images_per_class)
        if sampler == "grouped"
        else ShuffledOrder(len(labels))
    )


def _split(
    dataset: FaceDataset,
    pairs: list[str],
    pairs_root: str | None,
    val_identities: int | None,
    val_pairs: int,
    seed: int,
) -> tuple[FaceDataset, list[VerificationSet]]:
    if pairs:
        files = [load_pairs(p, root=pairs_root, image_size=dataset.image_size) for p in pairs]
        names = [file.name for file in files]
        if len(set(names)) < len(names):
            raise InputError(f"data.pairs has two files of one name, got {names}; rename one")
        for file in files:
            if len(file.same) < 10 or file.same.all() or not file.same.any():
                raise InputError(
                    f"{file.path}: verification needs at least 10 pairs of both kinds, got "
                    f"{int(file.same.sum())} genuine among {len(file.same)}"
                )
        return dataset, list(files)
    if val_identities == 0:
        return dataset, []
    automatic = val_identities is None
    wanted = min(dataset.num_classes // 10, 100) if val_identities is None else val_identities
    try:
        train, held = split_identities(dataset.labels, wanted, seed)
        return Subset(dataset, train), [SampledPairs(Subset(dataset, held), val_pairs, seed)]
    except InputError as error:
        if not automatic:
            raise
        rank_zero_print(f"nothing is held out for verification: {error}")
        return dataset, []
