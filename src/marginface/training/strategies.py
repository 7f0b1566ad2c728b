"""Lightning strategies for sharded class centers and backbones, and what they exclude."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from marginface.classifier import ClassifierOptions
from marginface.runs.checkpoint_file import CENTERS
from marginface.utils.distributed import copy_from_first, largest_over_ranks
from marginface.utils.errors import InputError


class ClassParallelStrategy(DDPStrategy):
    """Data-parallel training whose class centers are sharded over the processes.

    Every process has the whole backbone and a part of the classes. DDP never touches that part: it
    is not sent from the first process and its gradients are not averaged, because each process
    computes them from the embeddings of all.
    """

    def setup(self, trainer: L.Trainer) -> None:
        """Before parameters are synchronized, for training and for validation alone."""
        assert self.model is not None
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.model, [CENTERS])
        super().setup(trainer)


class FullyShardedStrategy(ModelParallelStrategy):
    """FSDP2 for the backbone (torch's fully_shard), class-parallel centers for the head.

    Checkpoints are those of every other strategy: whole tensors, written by the first process, so a
    run may begin with one strategy and continue with another.
    """

    def __init__(self, process_group_backend: str | None = None) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
        )

    def setup_environment(self) -> None:
        """Every process is one of the data-parallel ones."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def on_validation_start(self) -> None:
        """Verify with the running statistics that checkpoints hold: those of the first process.

        DDP sends them before every forward pass, FSDP never does.
        """
        assert self.lightning_module is not None
        copy_from_first(self.lightning_module.buffers())

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Whole tensors, on every process; the class centers stay what they are here."""
        assert self.lightning_module is not None
        return _whole(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The same for an optimizer."""
        return _whole(optimizer.state_dict())

    @property
    def lightning_restore_optimizer(self) -> bool:
        """That Lightning calls `load_optimizer_state_dict`."""
        return True

    def teardown(self) -> None:
        """Also wait for a checkpoint that is written in the background."""
        super().teardown()
        self.checkpoint_io.teardown()

    def load_checkpoint(
        self, checkpoint_path: str | Path, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the file; states are put in place later, as in other strategies."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Give every process its part of the weights."""
        assert self.lightning_module is not None
        given, own = checkpoint["state_dict"], self.lightning_module.state_dict()
        if given.keys() != own.keys():
            raise InputError(
                f"the checkpoint has other weights: {sorted(given.keys() ^ own.keys())}"
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(_part_of(given[name], value))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Give every process its part of momentum and moments."""
        for optimizer, given in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state = {
                number: {
                    key: _part_of(value, parameters[number])
                    if isinstance(value, Tensor) and value.shape == parameters[number].shape
                    else value
                    for key, value in values.items()
                }
                for number, values in given["state"].items()
            }
            optimizer.load_state_dict({**given, "state": state})


def _whole(tree: Any) -> Any:
    """Every DTensor as a whole tensor on the CPU."""
    return apply_to_collection(tree, DTensor, lambda tensor: tensor.full_tensor().cpu())


def _part_of(value: Tensor, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return value
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements)


def shard_backbone(backbone: nn.Module, mesh: DeviceMesh) -> None:
    """Spread a backbone over the processes, block by block; once."""
    if isinstance(backbone, FSDPModule):
        return
    for module in reversed(list(backbone.modules())):  # inner ones first
        if isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1:
            for block in module:
                if any(p.requires_grad for p in block.parameters()):
                    fully_shard(block, mesh=mesh)
    fully_shard(backbone, mesh=mesh)


def agree_on_overflow(centers: Tensor, parameters: Iterable[nn.Parameter]) -> None:
    """Have all processes skip a step that loss scaling makes too large for one of them.

    Args:
        centers: those of this process, whose gradient no other process sees.
        parameters: all, to mark: a process may have no centers, but has a backbone.
    """
    gradient = centers.grad
    if gradient is None:  # a step without a label, on all processes
        return
    too_large = ~torch.isfinite(_values(gradient).sum())
    if largest_over_ranks(too_large.to(torch.float32)) > 0:
        for p in parameters:
            if p.grad is not None:
                _values(p.grad).fill_(torch.nan)


def _values(gradient: Tensor) -> Tensor:
    return gradient._values() if gradient.is_sparse else gradient


def shares_classes(trainer: L.Trainer) -> bool:
    """Whether the class centers of this run are sharded over its processes."""
    strategy: Any = trainer.strategy
    return isinstance(strategy, ClassParallelStrategy | FullyShardedStrategy)


def with_precision_of(options: ClassifierOptions, trainer: L.Trainer) -> ClassifierOptions:
    """matmul_precision=auto as float16 where a GPU computes the backbone in 16 bits anyway."""
    on_gpu = trainer.strategy.root_device.type == "cuda"
    if options.matmul_precision == "auto" and on_gpu and str(trainer.precision).endswith("-mixed"):
        return replace(options, matmul_precision="float16")
    return options


def check_classifier(options: ClassifierOptions, trainer: L.Trainer) -> None:
    """InputError for options of the classifier that these processes or steps cannot have."""
    inside = "classifier.optimizer_in_backward=true"
    if options.samples and trainer.world_size > 1 and not shares_classes(trainer):
        # The gradients of different samples would be averaged.
        raise InputError(
            f"classifier.sample_rate={options.sample_rate} on {trainer.world_size} processes needs "
            "trainer=class_parallel, which shards the classes over them"
        )
    if not options.optimizer_in_backward:
        return
    if isinstance(trainer.strategy, DDPStrategy) and not shares_classes(trainer):
        raise InputError(
            f"{inside} leaves no gradients of the class centers, which this strategy averages over "
            "its processes, even with one: use trainer=class_parallel, or trainer=cpu or gpu"
        )
    if trainer.accumulate_grad_batches > 1:
        raise InputError(
            f"{inside} steps with every micro-batch, so nothing can be accumulated: "
            f"trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} must be 1"
        )
    if scales_loss(trainer):
        raise InputError(
            f"{inside} cannot take back a step, which the loss scaling of "
            f"trainer.precision={trainer.precision} needs: use bf16-mixed or 32-true"
        )


def scales_loss(trainer: L.Trainer) -> bool:
    """Whether losses are scaled, and steps with too large gradients left out (float16)."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None
