"""Starting weights for a backbone from .pth, .ckpt or .safetensors files; nothing fits half."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from marginface.utils.errors import InputError, MissingInputError
from marginface.utils.torch_files import load_tensors

State = dict[str, Tensor]
_PREFIX = "backbone."
# Under which name files with more in them than weights keep these, the most usual first.
_USUAL_NAMES = ("state_dict", "model", "model_state_dict", "net", "net_state_dict", "backbone",
                "state_dict_backbone", "network", "weights")  # fmt: skip


def load_backbone_weights(backbone: nn.Module, path: str | Path) -> None:
    """Load all weights of `backbone` from a file.

    Args:
        path: a state dict (.pth, insightface's files included), alone or in a dict with other
            things, our .ckpt, or .safetensors; all names may share a prefix.

    Raises:
        MissingInputError: no such file.
        InputError: the file is not a state dict, or does not fit; the message lists what did not.
    """
    path = Path(path)
    fit_weights(backbone, of_network(read_state(path), backbone.state_dict()), path)


def fit_weights(backbone: nn.Module, state: State, path: Path) -> None:
    """Load all weights of `backbone` from a state dict with its own names.

    Args:
        path: where they are from, for the message.

    Raises:
        InputError: they do not fit; the message lists what did not.
    """
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
            "Choose the backbone (and backbone.embedding_size) the file was trained with; "
            "backbone=pretrained takes what checkpoints and files of known projects say"
            + _hint_at_timm(missing, unexpected)
        )
    backbone.load_state_dict(state, strict=False)


def _hint_at_timm(missing: list[str], unexpected: list[str]) -> str:
    """What to choose where the names are those of timm's network without our neck."""
    inside = {name.removeprefix("model.") for name in missing if name.startswith("model.")}
    if not inside or 2 * len(inside & set(unexpected)) < len(inside):
        return ""
    return (
        ". Its names are those of timm's network by itself: backbone.pool=classifier "
        "backbone.embedding_size=<width of its last layer>"
    )


def read_state(path: Path) -> State:
    """The state dict in a file, with the names that the file has.

    Raises:
        MissingInputError: no such file.
        InputError: another kind of file, or several state dicts of which none has a usual name.
    """
    nested = read_states(path)
    if "" in nested:
        return nested[""]
    usual = [key for name in _USUAL_NAMES for key in nested if key.rpartition(".")[2] == name]
    usual.sort(key=lambda key: key.count("."))  # of the file before those of parts of it
    if not usual and len(nested) != 1:
        raise InputError(
            f"{path} is not a state dict and holds {len(nested)} of them ({', '.join(nested)}); "
            "save the one of the network: torch.save(model.state_dict(), 'weights.pth')"
        )
    return nested[usual[0] if usual else next(iter(nested))]


def read_states(path: Path) -> dict[str, State]:
    """All state dicts in a file, by the dotted name of where they are: "" for the file itself.

    Raises:
        MissingInputError: no such file.
        InputError: another kind of file, or one without a state dict.
    """
    if not path.is_file():
        raise MissingInputError(f"no weights file {path}; check backbone.weights")
    content: Any = _load_safetensors(path) if path.suffix == ".safetensors" else load_tensors(path)
    if _is_state(content):
        return {"": content}
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a state dict, got {type(content).__name__}")
    nested = dict(_states_in(content))
    if not nested:
        raise InputError(
            f"{path} is not a state dict and holds none, its keys are "
            f"{', '.join(map(str, list(content)[:8]))}; save the one of the network: "
            "torch.save(model.state_dict(), 'weights.pth')"
        )
    return nested


def _states_in(content: dict[Any, Any], above: str = "") -> Iterator[tuple[str, State]]:
    """All state dicts in nested dicts, by dotted name."""
    for key, value in content.items():
        name = f"{above}.{key}" if above else str(key)
        if _is_state(value):
            yield name, value
        elif isinstance(value, dict):
            yield from _states_in(value, name)


def _load_safetensors(path: Path) -> State:
    try:
        return load_file(path)
    except Exception as error:  # it has exception types of its own
        raise InputError(f"{path} is not a readable weights file: {error}") from error


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, dict)
        and len(content) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )


def of_network(state: State, expected: Collection[str]) -> State:
    """The part of a state dict that is a network's, under the network's own names.

    All names of a network may share a prefix (`backbone.`, `module.`, `_orig_mod.`, `model.` or
    several of them); what has another one belongs to something else, such as a head.

    Args:
        expected: names of the network's tensors. Where no prefix fits them all, the usual ones
            are left out, so that a message shows what is different.
    """
    needed = [key for key in expected if not key.endswith("num_batches_tracked")]
    anchor = needed[0] if needed else ""
    prefixes = [key.removesuffix(anchor) for key in state if key.endswith(anchor)]
    fitting = [prefix for prefix in prefixes if all(prefix + key in state for key in needed)]
    if "" in fitting:
        return state
    if len(fitting) > 1:
        raise InputError(
            f"the file holds {len(fitting)} networks, {', '.join(fitting)}; save the one that is "
            "meant: torch.save(model.state_dict(), 'weights.pth')"
        )
    if fitting:
        prefix = fitting[0]
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
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
    content = read_state(path)
    for name in RECOGNIZED:
        with torch.device("meta"):
            names = timm.create_model(name, num_classes=1).state_dict()
            state = of_network(content, names)
            width = _embedding_size(state)
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
        f"{', '.join(RECOGNIZED)} at 112 pixels; name it with backbone=<name> "
        "in a training or evaluate.py"
    )


def _embedding_size(state: dict[str, Tensor]) -> int:
    """Length of the last normalization, or else of the last one-dimensional tensor."""
    for last in ("features.weight", "norm.weight"):  # of IResNets and of MobileFaceNet
        if last in state:
            return len(state[last])
    vectors = [value for value in state.values() if value.ndim == 1]
    return len(vectors[-1]) if vectors else 1
