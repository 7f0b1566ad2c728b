"""The LightningModule: training step, optimizers, validation, checkpoints."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from marginface.data.augmentation import Augmentation
from marginface.data.datamodule import FaceDataModule
from marginface.data.image_dataset import Batch
from marginface.data.preprocessing import MIDDLE, Color, embed_with_flip, normalize_images
from marginface.heads import MarginHead
from marginface.runs.checkpoint_file import CHECKPOINT_FORMAT
from marginface.training.batch_norm import check_images_left
from marginface.training.checkpoints.centers import pack_head, unpack_head
from marginface.training.divergence import Step, divergence_report
from marginface.training.extra_losses import ExtraLoss, Start
from marginface.training.finetuning import FineTuning
from marginface.training.gradient_clipping import clip_gradients
from marginface.training.late_numbers import LateNumbers, Numbers
from marginface.training.optimizers import number_of, step_in_backward
from marginface.training.parameter_groups import apply_factors, parameter_groups, rate_of
from marginface.training.schedulers import Schedule, follow_schedule
from marginface.training.step_statistics import StepStatistics
from marginface.training.steps import (
    correct_epoch_count,
    keep_steps_whole,
    logs_step,
    rescale_micro_batches,
    steps_per_epoch,
)
from marginface.training.stop_request import StopRequest
from marginface.training.strategies import (
    FullyShardedStrategy,
    agree_on_overflow,
    scales_loss,
    shard_backbone,
)
from marginface.training.validation import Verification
from marginface.utils.distributed import gather_rows, rank
from marginface.utils.errors import InputError, NonFiniteLossError
from marginface.utils.seeded_random import hash_bits

_STATES = ("state_dict", "current_model_state")  # of a checkpoint; the second with averages


class FaceRecognizer(L.LightningModule):
    """Trains a backbone with a margin head and verifies it on pairs.

    Args:
        backbone: (B, 3, S, S) images to (B, D) embeddings.
        head: margin head over the D-wide embeddings.
        make_optimizer: parameter groups to an optimizer.
        augmentation: changes training images; flips when not given.
        make_schedule: called with total_steps= and steps_per_epoch=, returns factor(step).
        decay_bias_and_norm: whether weight decay also acts on biases, norms and other vectors.
        finetuning: what of the backbone is trained, and how fast; all of it when not given.
        extra_losses: that are added to the head's.
        margin_weight: of the head's own loss; with 0 only the others are minimized.
        color: channel order the backbone is trained in.
        mean, std: of each channel of its images, in units of 0 to 255.
        seed: decides augmentation and all randomness within a step.
        channels_last: memory format of the backbone; faster convolutions on most devices.
        description: plain Python put into every checkpoint (resolved config and the like).
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: MarginHead,
        *,
        make_optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        make_schedule: Callable[..., Schedule],
        augmentation: Augmentation | None = None,
        decay_bias_and_norm: bool = True,
        finetuning: FineTuning | None = None,
        extra_losses: Sequence[ExtraLoss] = (),
        margin_weight: float = 1.0,
        color: Color = "rgb",
        mean: Sequence[float] = MIDDLE,
        std: Sequence[float] = MIDDLE,
        seed: int = 0,
        channels_last: bool = False,
        description: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.backbone = backbone.to(memory_format=self.memory_format)
        self.head = head
        self.make_optimizer = make_optimizer
        self.make_schedule = make_schedule
        self.augmentation = augmentation or Augmentation()
        self.decay_bias_and_norm = decay_bias_and_norm
        self.finetuning = finetuning or FineTuning()
        self.extra_losses, self.margin_weight = tuple(extra_losses), margin_weight
        self.is_resting: bool | None = None  # the backbone; known when training begins
        self.color: Color = color
        self.mean, self.std = tuple(mean), tuple(std)
        self.seed = seed
        self.description = description or {}
        self.statistics = StepStatistics(head)
        self.verification = Verification()
        self.stop_request = StopRequest()
        self._facts = LateNumbers()  # losses and signals of all processes
        # What the centers are to begin at when the network is on its device; whether at random.
        self.begin_head: Callable[[Callable[[Tensor], Tensor], FaceDataModule], None] | None = None
        self.has_random_centers = True
        self.saving_path: Path | None = None  # the checkpoint that is being written
        self.resumed_from: Path | None = None  # the checkpoint that is being read

    @property
    def datamodule(self) -> FaceDataModule:
        """The data of the run under way."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    # -- training ------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        self._facts = LateNumbers()  # not those of a run that failed
        if isinstance(getattr(self.trainer, "datamodule", None), FaceDataModule):
            self.datamodule.label_watchers = [self.head.centers.know_labels]
        if self.begin_head is not None:
            was_training = self.backbone.training
            self.backbone.eval()
            self.begin_head(self.embed, self.datamodule)
            self.backbone.train(was_training)
            self.begin_head = None
        resumed = self.resumed_from is not None
        for extra in self.extra_losses:
            extra.begin(Start(self.datamodule, self.head.embedding_size, self.device, resumed))

    def on_train_start(self) -> None:
        if self.resumed_from is not None:
            follow_schedule(self.lr_schedulers())  # type: ignore[arg-type]  # there is one

    def train(self, mode: bool = True) -> Self:
        """Training mode, in which what is not trained keeps its statistics."""
        super().train(mode)
        if mode:
            self.finetuning.set_modes(self.backbone, resting=bool(self.is_resting))
        return self

    def _rest_or_not(self) -> None:
        """Let the backbone rest in the first epochs of a training that says so."""
        epoch = self.trainer.global_step // steps_per_epoch(self.trainer)
        resting = epoch < self.finetuning.resting_epochs()
        if resting != self.is_resting:
            self.is_resting = resting
            self.train()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self._rest_or_not()
        # Lightning saves no generator state, so dropout and the like start anew from the step.
        part = batch_idx % self.trainer.accumulate_grad_batches
        place = torch.tensor([self.trainer.global_rank * 4096 + part])
        torch.manual_seed(int(hash_bits(self.seed, self.trainer.global_step, place)[0]))
        if part == 0:
            self.statistics.begin()
            self.head.begin_step(self.trainer.global_step)

    def on_train_end(self) -> None:
        self.look_at_last_step()
        self.head.end_steps()
        self.head.centers.step_centers_in_backward = None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels, indices = batch
        check_images_left(self.backbone, len(images))
        # Losses beside the head's see the images that the backbone sees.
        seen = self._augmented(images, indices) if self.extra_losses else None
        with torch.set_grad_enabled(not self.is_resting):
            embeddings = self.backbone(
                self.network_input(images, indices) if seen is None else self._normalized(seen)
            )
        loss = self._loss(embeddings, labels, seen)
        # All processes or none: one that stops alone leaves the others waiting for it.
        here = torch.stack([loss.detach(), torch.full_like(loss, self.stop_request.received or 0)])
        facts = gather_rows(here[None])
        self._look_at(
            self._facts.exchange(
                facts, Step(self.trainer.global_step, self._rate(), embeddings.detach(), labels)
            )
        )
        self.statistics.add_loss("", loss)
        if logs_step(self.trainer, self.trainer.global_step):
            self.statistics.update(embeddings, labels)
        return loss

    def _loss(self, embeddings: Tensor, labels: Tensor, seen: Tensor | None) -> Tensor:
        """That of the head, and those beside it, by their weights."""
        if seen is None:
            return self.head(embeddings, labels)
        loss = embeddings.new_zeros((), dtype=torch.float32)
        if self.margin_weight:
            margin = self.head(embeddings, labels)
            self.statistics.add_loss("margin", margin)
            loss = loss + self.margin_weight * margin
        for extra in self.extra_losses:
            part = extra(seen, embeddings, labels)
            self.statistics.add_loss(extra.name, part)
            loss = loss + part
        return loss

    def look_at_last_step(self) -> None:
        """See that the loss of the last step is finite, where that is still to be seen.

        Raises:
            NonFiniteLossError: it is not.
        """
        self._look_at(self._facts.take())

    def _look_at(self, facts: Numbers | None) -> None:
        if facts is None:
            return
        losses, signals = zip(*facts.values, strict=True)
        self.stop_request.agreed = int(max(signals)) or None
        if not all(map(math.isfinite, losses)):
            loss = losses[rank()] if len(losses) > 1 else losses[0]
            raise NonFiniteLossError(divergence_report(loss, facts.of_step, self.head))

    def network_input(self, images: Tensor, indices: Tensor) -> Tensor:
        """uint8 images to what the backbone trains on: augmented by seed, normalized, ordered."""
        return self._normalized(self._augmented(images, indices))

    def _augmented(self, images: Tensor, indices: Tensor) -> Tensor:
        epoch = self.trainer.global_step // steps_per_epoch(self.trainer)
        return self.augmentation(images, indices, self.seed, epoch)

    def _normalized(self, images: Tensor) -> Tensor:
        x = normalize_images(images, self.color, self.mean, self.std)
        x = x.contiguous(memory_format=self.memory_format)
        # Weights are not float32 under 64-true, bf16-true and 16-true.
        return x.to(next(self.backbone.parameters()).dtype)

    def _rate(self) -> float:
        return rate_of(self.trainer.optimizers[0])

    # -- optimization --------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        total_steps = int(self.trainer.estimated_stepping_batches)  # sets up the training data
        keep_steps_whole(self.trainer)
        try:
            groups = parameter_groups(
                self.backbone, self.head, self.decay_bias_and_norm, self.finetuning
            )
            optimizer = self.make_optimizer(groups)
            apply_factors(optimizer)
            number_of(self.head.weight, optimizer)  # the class centers are in the optimizer
            if self.head.options.optimizer_in_backward:
                self.head.centers.step_centers_in_backward = step_in_backward(
                    optimizer, self.head.weight
                )
        except ValueError as error:  # torch names the value: "Invalid learning rate: -1"
            raise InputError(f"optimizer: {error}") from error
        factor = self.make_schedule(
            total_steps=total_steps, steps_per_epoch=steps_per_epoch(self.trainer)
        )
        scheduler = {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, FullyShardedStrategy):
            assert self.device_mesh is not None
            self.memory_format = torch.contiguous_format  # the only one that FSDP2 takes
            self.backbone.to(memory_format=self.memory_format)
            shard_backbone(self.backbone, self.device_mesh["data_parallel"])

    def on_after_backward(self) -> None:
        """Have all processes skip a step that loss scaling makes too large for one of them."""
        if scales_loss(self.trainer) and self.head.shard is not None:
            agree_on_overflow(self.head.weight, self.parameters())

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the backbone's norm only, as the official recipes do; the head's stays free."""
        # Lightning 2.6.6 refuses to clip with fused optimizers under bf16-mixed (#21435).
        norm = clip_gradients(
            list(self.backbone.parameters()),
            gradient_clip_val,
            by_value=gradient_clip_algorithm == "value",
            tells_norm=logs_step(self.trainer, self.trainer.global_step),
        )
        if norm is not None:
            self.statistics.gradient_norm = norm

    # -- validation ----------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self.look_at_last_step()
        self.verification.begin(self.datamodule.verification_sets)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        images, _, indices = batch
        self.verification.update(dataloader_idx, self.embed(images), indices)

    def on_validation_epoch_end(self) -> None:
        self.verification.finish(self.trainer, self.datamodule.verification_sets)
        # For callbacks that monitor; every rank computed the same from the gathered table.
        self.log_dict(self.verification.metrics(), logger=False, rank_zero_only=False)

    def embed(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, S, S) to float32 (B, D): image and mirror image added, not normalized.

        Without autocast, as `evaluate.py` embeds: 16-bit convolutions shift accuracies by a point.
        """
        # A compiled network is compiled for training; in evaluation mode and for the sizes of
        # validation's batches it would have to be compiled anew.
        compiled = self.backbone._compiled_call_impl is not None
        as_written = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
        with torch.autocast(images.device.type, enabled=False), as_written:
            return embed_with_flip(self.backbone, self._normalized(images))

    # -- checkpoints ---------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.look_at_last_step()  # weights of a diverged run must not replace good ones
        checkpoint["marginface"] = {
            "format": CHECKPOINT_FORMAT,
            "description": self.description,
            "step": self.trainer.global_step,
            "steps_per_epoch": steps_per_epoch(self.trainer),
            "accumulate": self.trainer.accumulate_grad_batches,
        }
        for state in _STATES:
            self.finetuning.leave_out(self.backbone, checkpoint.get(state, {}))
        number = number_of(self.head.weight, self.trainer.optimizers[0])
        pack_head(checkpoint, self.head, number, self.saving_path)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let a run continue with other processes, and with other accumulation steps."""
        for state in _STATES:
            self.finetuning.complete(self.backbone, checkpoint.get(state, {}))
        unpack_head(checkpoint, self.head, self.resumed_from)
        run, loop = checkpoint["marginface"], checkpoint["loops"]["fit_loop"]
        correct_epoch_count(loop, run["step"], run["steps_per_epoch"])
        rescale_micro_batches(loop, run["accumulate"], self.trainer.accumulate_grad_batches)
