"""Logits, loss and both gradients of the official implementations, float64, 1e-6."""

import json
from pathlib import Path

import numpy as np
import torch

from marginface.heads import create_head, list_heads

PARAMETER_NAMES = {"s": "scale", "m": "margin"}


def test_golden_heads(golden: Path) -> None:
    arrays = np.load(golden / "heads.npz")
    cases = json.loads((golden / "heads.json").read_text())
    checked = set()
    for case in cases:
        if case["head"] not in list_heads():
            continue
        parameters = {PARAMETER_NAMES.get(k, k): v for k, v in case["params"].items()}
        head = create_head(
            case["head"],
            embedding_size=32,
            num_classes=40,
            margin_gradient=case["gradient"],
            **parameters,
        ).double()

        def read(key: str, name: str = case["case"]) -> torch.Tensor:
            return torch.from_numpy(arrays[f"{name}.{key}"])

        head.weight.data = read("weight")
        embedding = read("embedding").requires_grad_()
        loss = head(embedding, read("label"))
        loss.backward()
        close = {"rtol": 1e-6, "atol": 1e-6}
        torch.testing.assert_close(head.logits(embedding, read("label")), read("logits"), **close)
        torch.testing.assert_close(loss.item(), case["loss"], **close)
        torch.testing.assert_close(embedding.grad, read("grad_embedding"), **close)
        torch.testing.assert_close(head.weight.grad, read("grad_weight"), **close)
        checked.add(case["head"])
    assert checked >= {"x2softmax", "arcface", "cosface", "normface"}
