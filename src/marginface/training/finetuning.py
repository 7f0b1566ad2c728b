"""What of a trained network is trained further, and at which rate: the `finetune` group.

Rates are factors of `optimizer.lr`; that of the class centers is 1 unless a group says otherwise.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from marginface.backbones.adapters import AdapterOptions, add_adapters
from marginface.backbones.depth import parameter_depths
from marginface.runs.checkpoint_file import CENTERS
from marginface.utils.arguments import WholeNumber, mapping_problems
from marginface.utils.errors import InputError

Groups = dict[str, dict[str, Any]]
# Keys of the `finetune` node that are not arguments of one of these classes.
COMPATIBILITY: dict[str, Any] = {
    "compatible_with": str | None, "compatible_weight": float, "compatible_centers": str,
}  # fmt: skip


def own_settings(node: dict[str, Any] | None) -> dict[str, Any]:
    """The `finetune` node without what it says of compatibility."""
    return {key: value for key, value in (node or {}).items() if key not in COMPATIBILITY}


_GROUP_KEYS: dict[str, Any] = {
    "match": str, "lr": float, "weight_decay": float, "train": bool,
}  # fmt: skip


class FineTuning:
    """Everything is trained; groups of parameters may have rates and weight decays of their own.

    Args:
        groups: by any name: `match`, a regular expression that is searched for in names such as
            backbone.fc.weight; `lr`, a factor of the rate; `weight_decay` in place of the
            optimizer's; `train`, whether these are trained at all.

    Raises:
        InputError: a group that is not of this form.
    """

    def __init__(self, groups: Groups | None = None) -> None:
        self.groups: Groups = groups or {}
        for name, group in self.groups.items():
            where = f"finetune.groups.{name}"
            problems = mapping_problems(where, group, _GROUP_KEYS, required={"match"})
            problems += [
                f"{where}.{key} must not be negative, got {group[key]}"
                for key in ("lr", "weight_decay")
                if not problems and group.get(key, 0) < 0
            ]
            if problems:
                raise InputError(problems[0])
            try:
                re.compile(group["match"])
            except re.error as error:
                raise InputError(f"finetune.groups.{name}.match: {error}") from error
        self._in_eval: list[nn.Module] = []

    def prepare(self, network: nn.Module) -> None:
        """Freeze what is not trained; before parameters are given to an optimizer."""
        self._freeze(network)
        for name, group in self.groups.items():
            matching = [p for n, p in network.named_parameters() if _matches(group, n)]
            of_head = re.search(group["match"], CENTERS) is not None
            if not matching and not of_head:
                raise InputError(
                    f"finetune.groups.{name}.match={group['match']} is in no name; names are such "
                    f"as backbone.{next(n for n, _ in network.named_parameters())} and {CENTERS}"
                )
            if "train" in group and of_head:
                raise InputError(
                    f"finetune.groups.{name}.train: {group['match']} is in {CENTERS}, and class "
                    "centers are always trained; lr: 0 leaves them where they are"
                )
            for parameter in matching if "train" in group else []:
                parameter.requires_grad = group["train"]
        self._in_eval = [part for part in network.modules() if self._rests(part)]

    def _rests(self, part: nn.Module) -> bool:
        """Whether a batch normalization has parameters, none of which is trained."""
        own = [p.requires_grad for p in part.parameters(recurse=False)]
        return isinstance(part, _BatchNorm) and bool(own) and not any(own)

    def _freeze(self, network: nn.Module) -> None:
        """Set `requires_grad` of what this way of training leaves as it is."""

    def rates(self, network: nn.Module) -> Mapping[str, float]:
        """Factors of the rate by the network's own names; 1 for those that are not there."""
        return {}

    def resting_epochs(self) -> int:
        """How many epochs the whole network rests, at the beginning."""
        return 0

    leaves_out = False  # weights that are not trained, from checkpoints

    def leave_out(self, network: nn.Module, state: dict[str, Any]) -> None:
        """Take what a checkpoint need not have out of its state."""

    def complete(self, network: nn.Module, state: dict[str, Any]) -> None:
        """Put what `leave_out` took back, from the network, which began with the same."""

    def set_modes(self, network: nn.Module, *, resting: bool) -> None:
        """After `network.train()`: what is not trained keeps its statistics, too."""
        if resting:
            network.eval()
        for part in self._in_eval:
            part.eval()

    def group_of(self, name: str) -> dict[str, Any]:
        """What the groups say of a parameter, by its whole name; a later group wins."""
        found: dict[str, Any] = {}
        for group in self.groups.values():
            if re.search(group["match"], name):
                found |= group
        return found


class HeadFirst(FineTuning):
    """Only the class centers are trained for some epochs, then everything.

    Args:
        epochs: in which the network rests, batch normalizations in evaluation mode.
        groups: see `FineTuning`.
    """

    def __init__(self, epochs: WholeNumber = 1, groups: Groups | None = None) -> None:
        super().__init__(groups)
        self.epochs = epochs

    def resting_epochs(self) -> int:
        return self.epochs


class LastStages(FineTuning):
    """Only the neck and the last stages are trained; the others keep their statistics, too.

    Args:
        stages: how many; of a ViT, blocks. 0: the neck alone.
        groups: see `FineTuning`.
    """

    def __init__(self, stages: int = 1, groups: Groups | None = None) -> None:
        super().__init__(groups)
        if stages < 0:
            raise InputError(f"finetune.stages must not be negative, got {stages}")
        self.stages = stages

    def _freeze(self, network: nn.Module) -> None:
        depths = parameter_depths(network, coarse=True)
        neck = max(depths.values())
        if self.stages > neck:
            raise InputError(
                f"finetune.stages={self.stages}: the network has {neck} before its neck"
            )
        for name, parameter in network.named_parameters():
            if depths[name] < neck - self.stages:
                parameter.requires_grad = False


class LayerDecay(FineTuning):
    """Everything is trained, the deeper below the neck the slower (BEiT, arXiv 2106.08254).

    Args:
        decay: factor of the rate from one block to that before it, in (0, 1].
        groups: see `FineTuning`.
    """

    def __init__(self, decay: float = 0.75, groups: Groups | None = None) -> None:
        super().__init__(groups)
        if not 0 < decay <= 1:
            raise InputError(f"finetune.decay must be in (0, 1], got {decay}")
        self.decay = decay

    def rates(self, network: nn.Module) -> Mapping[str, float]:
        depths = parameter_depths(network, coarse=False)
        neck = max(depths.values())
        return {name: self.decay ** (neck - depth) for name, depth in depths.items()}


class Lora(FineTuning):
    """Only low-rank adapters are trained (LoRA, arXiv 2106.09685); statistics rest.

    Args:
        rank, alpha, dropout, layers: see `AdapterOptions`.
        save: "all" weights in checkpoints, or only those of the "adapters", which then need the
            file that backbone.weights names.
        groups: see `FineTuning`.
    """

    def __init__(
        self,
        rank: WholeNumber = 16,
        alpha: float = 32.0,
        dropout: float = 0.0,
        layers: str | None = None,
        save: Literal["all", "adapters"] = "all",
        groups: Groups | None = None,
    ) -> None:
        super().__init__(groups)
        self.options = AdapterOptions(rank, alpha, dropout, layers)
        self.leaves_out = save == "adapters"

    def _freeze(self, network: nn.Module) -> None:
        add_adapters(network, self.options)

    def leave_out(self, network: nn.Module, state: dict[str, Any]) -> None:
        if not self.leaves_out:
            return
        trained = {name for name, p in network.named_parameters() if p.requires_grad}
        for name in network.state_dict():
            if name not in trained:
                state.pop(f"backbone.{name}", None)

    def complete(self, network: nn.Module, state: dict[str, Any]) -> None:
        if self.leaves_out and state:
            for name, value in network.state_dict().items():
                state.setdefault(f"backbone.{name}", value)

    def _rests(self, part: nn.Module) -> bool:
        return isinstance(part, _BatchNorm)  # also those without gamma and beta


def _matches(group: Mapping[str, Any], name: str) -> bool:
    return re.search(group["match"], f"backbone.{name}") is not None
