"""Statistics of an optimizer step over its whole global batch, for the log."""

import torch
from torch import Tensor

from marginface.classifier.losses import BinaryCrossEntropy
from marginface.classifier.nearest import predictions
from marginface.heads import MarginHead
from marginface.utils.distributed import gather_rows_of_any_number, mean_over_ranks

ANGLE_PERCENTILES = (5, 50, 95)


class StepStatistics:
    """Collects the micro-batches of one optimizer step of a head."""

    def __init__(self, head: MarginHead) -> None:
        self.head = head
        self.last_logged: dict[str, float] = {}  # loss and metrics of the last logged step
        self.gradient_norm: Tensor | None = None  # of the backbone, before it is clipped
        self._losses: dict[str, list[Tensor]] = {}
        self._observed: list[Tensor] = []

    def begin(self) -> None:
        """Forget the step before."""
        self._losses.clear()
        self.gradient_norm = None
        self._observed.clear()

    def add_loss(self, name: str, loss: Tensor) -> None:
        """The loss of a micro-batch: "" the one that is minimized, or a part of it by name."""
        self._losses.setdefault(name, []).append(loss.detach())

    @torch.no_grad()
    def update(self, embeddings: Tensor, labels: Tensor) -> None:
        """What each image of a micro-batch shows; all classes are compared with for it."""
        nearest, target = predictions(self.head.centers, embeddings, labels)
        angle = target.clamp(-1, 1).arccos().rad2deg()
        columns = [nearest == labels, angle, embeddings.norm(dim=1)]
        self._observed.append(torch.stack([column.double() for column in columns], 1))

    def loss(self, name: str = "") -> float:
        """The mean over the step."""
        return float(mean_over_ranks(torch.stack(self._losses[name]).double().mean()))

    def log(self) -> dict[str, float]:
        """Loss and metrics of this step, kept as those of the last logged one."""
        parts = {f"train/{name}_loss": self.loss(name) for name in self._losses if name}
        self.last_logged = {"train/loss": self.loss(), **parts, **self.metrics()}
        if self.gradient_norm is not None and bool(self.gradient_norm.isfinite()):
            self.last_logged["train/gradient_norm"] = float(self.gradient_norm)
        return self.last_logged

    def metrics(self) -> dict[str, float]:
        """Margin-free accuracy, target angles in degrees, embedding norms, state of the head."""
        correct, angle, norms = gather_rows_of_any_number(torch.cat(self._observed)).unbind(1)
        percentiles = torch.quantile(angle, angle.new_tensor(ANGLE_PERCENTILES) / 100)
        loss = self.head.loss
        return {
            "train/accuracy": float(correct.mean()),
            "train/feature_norm": float(norms.mean()),
            **{
                f"train/target_angle_p{p}": float(value)
                for p, value in zip(ANGLE_PERCENTILES, percentiles, strict=True)
            },
            **{
                f"head/{name}": float(value)
                for name, value in self.head.margin.named_buffers()
                if value.is_floating_point()
            },
            **({"head/threshold": loss.threshold} if isinstance(loss, BinaryCrossEntropy) else {}),
        }
