"""Any timm model as an embedding network: `create_backbone`."""

import difflib
import typing
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from marginface.backbones.input_size import check_input_size
from marginface.backbones.timm_hub import hub_model, is_on_hub, unreachable
from marginface.utils.arguments import WholeNumber, call_problems, mapping_problems
from marginface.utils.errors import InputError, first_line

Pool = Literal["flatten", "model", "classifier"]
Norm = Literal["bn", "ln"]


class EmbeddingNetwork(nn.Module):
    """A timm feature extractor and the embedding neck behind it.

    The neck is [BN] - dropout - flatten - linear - norm for a feature map (pool="flatten", what
    insightface's networks do) and dropout - linear - norm for the model's own pooled features.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        *,
        embedding_size: int,
        image_size: int,
        pool: Pool,
        norm: Norm,
        dropout: float,
    ) -> None:
        super().__init__()
        self.model_name = name
        self.image_size = image_size
        self.model = model
        channels, width = _feature_shape(model, name, image_size, pool)
        layers: list[nn.Module] = []
        if pool == "flatten":
            layers.append(nn.BatchNorm2d(channels) if norm == "bn" else nn.GroupNorm(1, channels))
        self.neck = nn.Sequential(*layers, nn.Dropout(dropout), nn.Flatten())
        self.fc = nn.Linear(width, embedding_size)
        self.norm = (nn.BatchNorm1d if norm == "bn" else nn.LayerNorm)(embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.image_size, self.model_name)
        features = self.neck(self.model(x))
        # The last layer decides the angles; it stays out of reduced precision.
        with torch.autocast(x.device.type, enabled=False):
            return self.norm(self.fc(features.to(self.fc.weight.dtype)))


def checkpoint_activations(backbone: nn.Module) -> None:
    """Have a backbone compute its activations again in the backward pass, to save memory.

    Raises:
        InputError: a network that cannot.
    """
    model: Any = backbone.model if isinstance(backbone, EmbeddingNetwork) else backbone
    if not hasattr(model, "set_grad_checkpointing"):
        raise InputError(f"gradient_checkpointing: {type(model).__name__} has no way to do it")
    model.set_grad_checkpointing(True)


def create_backbone(
    name: str,
    *,
    embedding_size: WholeNumber = 512,
    image_size: WholeNumber = 112,
    pool: Pool = "model",
    norm: Norm = "bn",
    dropout: float = 0.0,
    pretrained: bool = False,
    model: dict[str, Any] | None = None,
) -> nn.Module:
    """Build a network (B, 3, S, S) -> (B, embedding_size) from any name timm knows.

    Args:
        name: `iresnet50`, `mobilefacenet` (which end in an embedding themselves), any timm model,
            or one of timm's on the Hub, `hf_hub:owner/model`.
        embedding_size: width of the embedding.
        image_size: S, side of the square input in pixels.
        pool: "model" takes the model's own pooled features, "flatten" its whole last feature map;
            "classifier" has no neck, the model's own classifier makes the embedding.
        norm: of the embedding: "bn" batch normalization, "ln" layer normalization.
        dropout: before the last linear layer, in [0, 1).
        pretrained: start from timm's weights.
        model: further arguments of the timm model.

    Raises:
        InputError: unknown name, or arguments or an image size the model cannot take.
    """
    on_hub = hub_model(name) if is_on_hub(name) else None
    if on_hub is None and not timm.is_model(name):
        raise InputError(unknown_backbone(name))
    if not 0 <= dropout < 1:
        raise InputError(f"backbone.dropout must be in [0, 1), got {dropout}")
    arguments = dict(model or {})
    cfg = timm.get_pretrained_cfg(name if on_hub is None else on_hub.architecture)
    if cfg is not None and cfg.fixed_input_size:
        arguments["img_size"] = image_size
    if on_hub is None and is_embedding_network(name):
        arguments |= {"num_classes": embedding_size, "drop_rate": dropout}
        return _create(name, pretrained, arguments)
    if pool == "classifier":
        arguments |= {"num_classes": embedding_size, "drop_rate": dropout}
        return _create(name, pretrained, arguments)
    arguments |= {"num_classes": 0}
    if pool == "flatten":
        arguments |= {"global_pool": ""}
    return EmbeddingNetwork(
        _create(name, pretrained, arguments),
        name,
        embedding_size=embedding_size,
        image_size=image_size,
        pool=pool,
        norm=norm,
        dropout=dropout,
    )


def is_embedding_network(name: str) -> bool:
    """Whether the timm model `name` is one of ours, which end in an embedding without a neck."""
    return timm.model_entrypoint(name).__module__.startswith("marginface.")


def unknown_backbone(name: str) -> str:
    """The message for a name timm does not know; timm's list is too long to print."""
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    suggestion = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
    return f"unknown backbone {name!r}.{suggestion} timm.list_models() prints all names"


def _create(name: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, **arguments)
    except Exception as error:  # timm's models refuse in many ways
        if is_on_hub(name) and isinstance(error, OSError):  # all of the Hub's client are
            raise InputError(unreachable(name, error)) from error
        raise InputError(
            f"backbone.name={name} does not take {arguments}: {first_line(error)}"
        ) from error


def _feature_shape(model: nn.Module, name: str, image_size: int, pool: Pool) -> tuple[int, int]:
    """Channels and flattened width of what the model returns for one image."""
    training = model.training
    try:
        with torch.no_grad():
            features = model.eval()(torch.zeros(1, 3, image_size, image_size))
    except Exception as error:  # timm's models refuse in many ways
        raise InputError(
            f"backbone.image_size: backbone {name!r} cannot take {image_size}x{image_size} images: "
            f"{first_line(error)}"
        ) from error
    model.train(training)
    if pool == "flatten" and features.ndim != 4:
        raise InputError(
            f"backbone {name!r} returns features of shape {tuple(features.shape)}, not a map to "
            "flatten; use backbone.pool=model"
        )
    return features.shape[1], features[0].numel()


_REQUIRED_EXTRAS: dict[str, Any] = {"weights": str | None, "color": typing.Literal["rgb", "bgr"]}
_BACKBONE_EXTRAS = _REQUIRED_EXTRAS | {
    "family": str | None, "mean": list[float], "std": list[float],
}  # fmt: skip


def network_settings(node: dict[str, Any]) -> dict[str, Any]:
    """The node of a backbone without what `create_backbone` does not take."""
    return {key: value for key, value in node.items() if key not in _BACKBONE_EXTRAS}


def image_problems(node: dict[str, Any]) -> list[str]:
    """What is wrong with what a node says of weights and images, not of the network itself."""
    extras = {key: node[key] for key in node if key in _BACKBONE_EXTRAS}
    problems = mapping_problems(
        "backbone", extras, _BACKBONE_EXTRAS, required=set(_REQUIRED_EXTRAS)
    )
    for key in ("mean", "std"):
        numbers = node.get(key)
        if isinstance(numbers, list) and (
            len(numbers) != 3 or (key == "std" and min(numbers) <= 0)
        ):
            problems.append(
                f"backbone.{key} must be three numbers in units of 0 to 255, one for each channel"
                f"{', above 0' if key == 'std' else ''}, got {numbers}"
            )
    return problems


def backbone_problems(node: dict[str, Any]) -> list[str]:
    """What is wrong with the node of a backbone."""
    name = node.get("name")
    if not is_on_hub(str(name)) and not timm.is_model(str(name)):
        return [unknown_backbone(str(name))]
    return image_problems(node) + call_problems(
        "backbone", create_backbone, network_settings(node), also=set(_BACKBONE_EXTRAS)
    )
