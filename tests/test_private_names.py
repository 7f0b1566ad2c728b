"""Private names of other libraries that this project uses: an upgrade that moves one fails here."""

import ast
import importlib
from pathlib import Path

import pytest

from helpers.paths import ROOT

OTHERS = ("hydra", "lightning", "lightning_utilities", "omegaconf", "timm", "torch", "torchmetrics")


def private_imports() -> list[tuple[str, str]]:
    """(module, name) of every import with a part that begins with an underscore."""
    found = set()
    for path in [*(ROOT / "src").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [(node.module, alias.name) for alias in node.names]
                found |= {(m, n) for m, n in names if m.split(".")[0] in OTHERS and _private(m, n)}
    return sorted(found)


def _private(module: str, name: str) -> bool:
    return any(part.startswith("_") and part != "__future__" for part in [*module.split("."), name])


# Private attributes that no import statement shows.
ATTRIBUTES = [
    ("lightning.pytorch.strategies.launchers.subprocess_script", "_launch_process_observer"),
    (
        "torch.nn.parallel",
        "DistributedDataParallel._set_params_and_buffers_to_ignore_for_model",
    ),
    ("torch.optim.lr_scheduler", "LambdaLR"),
    ("omegaconf", "DictConfig._get_node"),
    ("omegaconf", "DictConfig._is_none"),
    ("torch", "Tensor._values"),
]


@pytest.mark.parametrize(("module", "name"), [*private_imports(), *ATTRIBUTES])
def test_is_still_there(module: str, name: str) -> None:
    value = importlib.import_module(module)
    for part in name.split("."):
        value = getattr(value, part)


def test_the_list_is_not_empty() -> None:
    assert len(private_imports()) >= 3
    assert Path(ROOT / "src").is_dir()
