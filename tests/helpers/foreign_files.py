"""Files of other projects, assembled from the facts in golden/foreign with filled weights."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def facts(golden: Path, family: str) -> dict[str, Any]:
    """golden/foreign/<family>.json."""
    found: dict[str, Any] = json.loads((golden / "foreign" / f"{family}.json").read_text())
    return found


def shapes_of(golden: Path, family: str, network: str) -> dict[str, list[int]]:
    """Names and shapes of a network's tensors."""
    net = facts(golden, family)["nets"][network]
    if "keys" in net:
        return dict(net["keys"])
    file, other = net["keys_of"]
    content = json.loads((golden / file).read_text())
    if "nets" in content:
        return dict(content["nets"][other]["keys"])
    keys = content[other]
    return dict(keys.get("keys", keys))


def filled(shapes: dict[str, list[int]], *, eps: bool = False) -> dict[str, Tensor]:
    """Weights by the rule of golden/README.md; `eps`: small variances, see foreign/README.md."""
    state = {name: _fill(name, shape) for name, shape in shapes.items()}
    if eps:
        for name in list(state):
            if name.endswith("running_var"):
                state[name] = state[name] * np.float32(1e-3)
                weight = name.replace("running_var", "weight")
                if weight in state:
                    state[weight] = state[weight] * np.float32(1e-3**0.5)
            elif name in ("pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"):
                state[name] = state[name] * np.float32(0.01)
    return {name: torch.tensor(value) for name, value in state.items()}


def _fill(name: str, shape: list[int]) -> Any:
    if name.endswith("num_batches_tracked"):
        return np.int64(0)
    v = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    last = name.rsplit(".", 1)[-1]
    if last == "running_var":
        return (1 + 0.1 * np.abs(v)).astype(np.float32)
    if last in ("running_mean", "bias"):
        return (0.05 * v).astype(np.float32)
    if v.ndim >= 2:
        return (v / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    if "prelu" in name:
        return (0.25 + 0.02 * v).astype(np.float32)
    return (1 + 0.05 * v).astype(np.float32)


def file_of(state: dict[str, Tensor], kind: dict[str, Any], path: Path, classes: int = 7) -> Path:
    """A published file: `kind` is one of the `checkpoints` of the facts."""
    content: dict[str, Any] = {kind["prefix"] + name: value for name, value in state.items()}
    for name, shape in kind["others"].items():
        content[name] = torch.zeros([classes if size == "C" else size for size in shape])
    for key in reversed(kind["nesting"]):
        content = {key: content, "epoch": 3, "arch": "net"}
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file({k: v.contiguous() for k, v in content.items()}, path)
    else:
        torch.save(content, path)
    return path


def images(size: int) -> Tensor:
    """What the golden embeddings were made from."""
    drawn = np.random.RandomState(7).standard_normal((2, 3, size, size)).clip(-1, 1)
    return torch.from_numpy(drawn.astype(np.float32))
