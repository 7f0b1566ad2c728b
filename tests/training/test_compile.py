"""compile=true: every network is one graph, which validation leaves as it is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from helpers.runs import compose
from marginface.backbones import create_backbone
from marginface.training import train

NETWORKS = {
    "miniresnet8_half": {},
    "mobilefacenet": {},
    "iresnet18": {},
    "vit_tiny_patch16_224": {"pool": "model", "norm": "ln"},
    "resnet18": {"pool": "flatten"},  # any other of timm's
}
OF_OTHERS = {
    "ir": {"model": {"blocks": [1, 1, 1, 1], "squeeze": True}},
    "iresnet": {"model": {"layers": [1, 1, 1, 1], "magface": True}},
    "flat_vit": {"model": {"depth": 2}},
    "mbf": {},
    "edgeface": {},
    "inception_resnet_v1": {},
}
ALL = [
    "miniresnet8_half",
    *(pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS if "mini" not in name),
    *(pytest.param(name, marks=pytest.mark.long) for name in OF_OTHERS),
]


@pytest.mark.parametrize("name", ALL)
def test_a_network_is_one_graph(name: str) -> None:
    torch._dynamo.reset()
    counters.clear()
    settings: dict[str, Any] = (NETWORKS | OF_OTHERS)[name]
    backbone = create_backbone(name, **settings).train()
    backbone.compile(fullgraph=True, backend="aot_eager")  # whatever the graph is then made into
    images = torch.randn(4, 3, 112, 112)
    for _ in range(2):
        backbone(images).sum().backward()
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_a_run_compiles_once(tiny_run: list[str], tmp_path: Path) -> None:
    torch._dynamo.reset()
    counters.clear()
    settings = [*tiny_run, "compile=true", "trainer.max_epochs=2", "data.eval_batch_size=7"]
    result = train(compose(*settings, run_dir=tmp_path))
    assert counters["stats"]["unique_graphs"] == 1
    assert "val/mean/accuracy" in result
