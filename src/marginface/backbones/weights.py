"""Starting weights for a backbone from .pth, .ckpt or .safetensors files; nothing fits half."""

from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from marginface.utils.errors import InputError, MissingInputError

_PREFIX = "backbone."


def load_backbone_weights(backbone: nn.Module, path: str | Path) -> None:
    """Load all weights of `backbone` from a file.

    Args:
        path: a state dict (.pth, insightface's files included), our .ckpt, or .safetensors.

    Raises:
        MissingInputError: no such file.
        InputError: the file is not a state dict, or does not fit; the message lists what did not.
    """
    path = Path(path)
    state = read_backbone_state(path)
    expected = backbone.state_dict()
    # num_batches_tracked is a counter that old files lack and that only momentum=None reads.
    missing = [k for k in expected if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in expected]
    shapes = [
        f"{k} is {tuple(state[k].shape)} in the file and {tuple(expected[k].shape)} here"
        for k in expected
        if k in state and state[k].shape != expected[k].shape
    ]
    if missing or unexpected or shapes:
        raise InputError(
            f"{path} does not fit this backbone: "
            f"{_count(missing, 'missing')}; {_count(unexpected, 'unexpected')}; "
            f"{_count(shapes, 'of another shape')}. "
            "Choose the backbone (and backbone.embedding_size) the file was trained with"
        )
    backbone.load_state_dict(state, strict=False)


def read_backbone_state(path: Path) -> dict[str, Tensor]:
    """The backbone's tensors in a file of any of the three kinds."""
    if not path.is_file():
        raise MissingInputError(f"no weights file {path}; check backbone.weights")
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # each reader has its own exception types
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} is not a readable weights file: {reason}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path} is not a state dict, got {type(content).__name__}")
    if any(key.startswith(_PREFIX) for key in state):
        state = {k.removeprefix(_PREFIX): v for k, v in state.items() if k.startswith(_PREFIX)}
    return {key.removeprefix("module."): value for key, value in state.items()}


def _count(names: list[str], what: str) -> str:
    if not names:
        return f"0 {what}"
    more = f", ... ({len(names)} in all)" if len(names) > 5 else ""
    return f"{len(names)} {what} ({', '.join(names[:5])}{more})"


# Networks that a file of bare weights is compared with when the user does not name one.
RECOGNIZED = (
    "iresnet18", "iresnet34", "iresnet50", "iresnet100", "iresnet200", "mobilefacenet",
)  # fmt: skip


def identify_network(path: Path) -> dict[str, Any]:
    """The configuration of the one of insightface's networks whose weights these are."""
    state = read_backbone_state(path)
    width = _embedding_size(state)
    for name in RECOGNIZED:
        with torch.device("meta"):
            expected = timm.create_model(name, num_classes=width).state_dict()
        # num_batches_tracked is a counter that old files lack.
        fits = all(
            key in state and state[key].shape == value.shape
            for key, value in expected.items()
            if not key.endswith("num_batches_tracked")
        )
        if fits and not state.keys() - expected.keys():
            return {"name": name, "embedding_size": width, "image_size": 112}
    raise InputError(
        f"{path} does not say which network it holds, and its weights are not those of "
        f"{', '.join(RECOGNIZED)} at 112 pixels; name it with backbone=<name>"
    )


def _embedding_size(state: dict[str, Tensor]) -> int:
    """Length of the last normalization, or else of the last one-dimensional tensor."""
    for last in ("features.weight", "norm.weight"):  # of IResNets and of MobileFaceNet
        if last in state:
            return len(state[last])
    vectors = [value for value in state.values() if value.ndim == 1]
    return len(vectors[-1]) if vectors else 1
