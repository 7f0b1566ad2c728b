"""What is said when the loss leaves the finite numbers."""

from dataclasses import dataclass

from torch import Tensor

from marginface.heads import MarginHead


@dataclass(frozen=True)
class Step:
    """What a message about a step is made of."""

    number: int
    rate: float
    embeddings: Tensor
    labels: Tensor


def divergence_report(loss: float, step: Step, head: MarginHead) -> str:
    """The state of a step whose loss is not finite, and what may help."""
    norms = step.embeddings.float().norm(dim=1)
    return (
        f"the loss is {loss} at step {step.number} (lr {step.rate:.3g}, "
        f"embedding norms {norms.min():.3g} to {norms.max():.3g}, largest class-center norm "
        f"{head.weight.detach().norm(dim=1).max():.3g}, labels {step.labels.min()} to "
        f"{step.labels.max()} of {head.num_classes}). Lower optimizer.lr, lengthen "
        "scheduler.warmup_epochs or train with trainer.precision=32-true"
    )
