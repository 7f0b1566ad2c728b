"""How processes share the work, beyond what Lightning brings."""

from typing import Any

import lightning as L
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from marginface.classifier import ClassifierOptions
from marginface.errors import InputError

# The one parameter that differs between processes; in a submodule, or DDP would average it.
CLASS_CENTRES = "head.weight"


class ClassParallelStrategy(DDPStrategy):
    """Data-parallel training whose class centres are spread over the processes.

    Every process has the whole backbone and a part of the classes. DDP never touches that part: it
    is not sent from the first process and its gradients are not averaged, because each process
    computes them from the embeddings of all.
    """

    def setup(self, trainer: L.Trainer) -> None:
        """Before parameters are synchronised, for training and for validation alone."""
        assert self.model is not None
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
            self.model, [CLASS_CENTRES]
        )
        super().setup(trainer)


def shares_classes(trainer: L.Trainer) -> bool:
    """Whether the class centres of this run are spread over its processes."""
    strategy: Any = trainer.strategy
    return isinstance(strategy, ClassParallelStrategy)


def check_sampling(options: ClassifierOptions, trainer: L.Trainer) -> None:
    """InputError where sampled centres would be averaged over processes that sampled others."""
    if options.samples and trainer.world_size > 1 and not shares_classes(trainer):
        raise InputError(
            f"classifier.sample_rate={options.sample_rate} on {trainer.world_size} processes needs "
            "trainer=class_parallel, which spreads the classes over them"
        )
