"""Logits, loss, both gradients and state of the official implementations, float64, 1e-6."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marginface.heads import MarginHead, create_head

PARAMETER_NAMES = {"s": "scale", "m": "margin"}
STATE = {"adaface": ["batch_mean", "batch_std"], "curricularface": ["t"]}
# What the official implementations have and the cases do not name.
FIXED = {"magface": {"easy_margin": "monotone"}}


def make(case: dict[str, Any]) -> MarginHead:
    parameters = {PARAMETER_NAMES.get(k, k): v for k, v in case["params"].items()}
    state = {key: parameters.pop(key) for key in STATE.get(case["head"], [])}
    head = create_head(
        case["head"],
        embedding_size=32,
        num_classes=40,
        margin_gradient=case["gradient"],
        **parameters,
        **FIXED.get(case["head"], {}),
    ).double()
    for key, value in state.items():
        head.margin.get_buffer(key).fill_(value)
    return head


def test_golden_heads(golden: Path) -> None:
    arrays = np.load(golden / "heads.npz")
    cases = json.loads((golden / "heads.json").read_text())
    close = {"rtol": 1e-6, "atol": 1e-6}
    for case in cases:

        def read(key: str, name: str = case["case"]) -> torch.Tensor:
            return torch.from_numpy(arrays[f"{name}.{key}"])

        head, same = make(case), make(case)
        head.weight.data = same.weight.data = read("weight")
        embedding = read("embedding").requires_grad_()
        loss = head(embedding, read("label"))
        loss.backward()
        torch.testing.assert_close(same.logits(embedding, read("label")), read("logits"), **close)
        torch.testing.assert_close(loss.item(), case["loss"], **close)
        torch.testing.assert_close(embedding.grad, read("grad_embedding"), **close)
        torch.testing.assert_close(head.weight.grad, read("grad_weight"), **close)
        after = [head.margin.get_buffer(key).item() for key in STATE.get(case["head"], [])]
        assert after == pytest.approx(case.get("state_after", []), rel=1e-6)
    assert len({case["head"] for case in cases}) == 8
