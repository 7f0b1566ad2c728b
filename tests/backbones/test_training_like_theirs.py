"""Networks of others in training mode: SGD steps against their formulas, written out here.

The formulas are those of the projects' networks as functions of their tensors' names; statistics of
the batch, running statistics and all gradients take part.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers.foreign_files import facts, file_of, filled, shapes_of
from marginface.backbones import load_pretrained

State = dict[str, Tensor]
Forward = Callable[[State, Tensor], Tensor]
STEPS, BATCH, CLASSES, RATE = 3, 3, 7, 0.05


def batch_norm(state: State, name: str, x: Tensor, eps: float, momentum: float) -> Tensor:
    """By the formula; running statistics take the unbiased variance, as torch's do."""
    axes = [0, *range(2, x.ndim)]
    shape = [1, -1, *[1] * (x.ndim - 2)]
    mean, variance = x.mean(axes), x.var(axes, correction=0)
    count = x.numel() // x.shape[1]
    with torch.no_grad():
        old_mean, old_var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        old_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
        old_var.mul_(1 - momentum).add_(variance * count / (count - 1), alpha=momentum)
    out = (x - mean.view(shape)) / (variance.view(shape) + eps).sqrt()
    if f"{name}.weight" in state:
        out = out * state[f"{name}.weight"].view(shape) + state[f"{name}.bias"].view(shape)
    return out


def prelu(state: State, name: str, x: Tensor) -> Tensor:
    return torch.where(x >= 0, x, state[f"{name}.weight"].view(1, -1, 1, 1) * x)


def adaface(state: State, x: Tensor) -> Tensor:
    """AdaFace's ir_18: its shortcut subsamples where the width stays."""

    def norm(name: str, value: Tensor) -> Tensor:
        return batch_norm(state, name, value, 1e-5, 0.1)

    x = F.conv2d(x, state["input_layer.0.weight"], padding=1)
    x = prelu(state, "input_layer.2", norm("input_layer.1", x))
    for number in range(8):
        stride = 2 if number % 2 == 0 else 1
        block = f"body.{number}."
        if f"{block}shortcut_layer.0.weight" in state:
            shortcut = F.conv2d(x, state[f"{block}shortcut_layer.0.weight"], stride=stride)
            shortcut = norm(f"{block}shortcut_layer.1", shortcut)
        else:
            shortcut = F.max_pool2d(x, 1, stride)
        x = norm(f"{block}res_layer.0", x)
        x = F.conv2d(x, state[f"{block}res_layer.1.weight"], padding=1)
        x = prelu(state, f"{block}res_layer.3", norm(f"{block}res_layer.2", x))
        x = F.conv2d(x, state[f"{block}res_layer.4.weight"], stride=stride, padding=1)
        x = norm(f"{block}res_layer.5", x) + shortcut
    x = norm("output_layer.0", x).flatten(1)
    x = x @ state["output_layer.3.weight"].T + state["output_layer.3.bias"]
    return norm("output_layer.4", x)


def magface(state: State, x: Tensor) -> Tensor:
    """MagFace's iresnet18: the newest batch weighs 90 %, and the last gamma is trained."""

    def norm(name: str, value: Tensor) -> Tensor:
        return batch_norm(state, name, value, 2e-5, 0.9)

    x = F.conv2d(x, state["conv1.weight"], padding=1)
    x = prelu(state, "prelu", norm("bn1", x))
    for stage in (1, 2, 3, 4):
        for number in (0, 1):
            block, stride = f"layer{stage}.{number}.", 2 if number == 0 else 1
            shortcut = x
            if number == 0:
                shortcut = F.conv2d(x, state[f"{block}downsample.0.weight"], stride=stride)
                shortcut = norm(f"{block}downsample.1", shortcut)
            x = F.conv2d(norm(f"{block}bn1", x), state[f"{block}conv1.weight"], padding=1)
            x = prelu(state, f"{block}prelu", norm(f"{block}bn2", x))
            x = F.conv2d(x, state[f"{block}conv2.weight"], stride=stride, padding=1)
            x = norm(f"{block}bn3", x) + shortcut
    x = norm("bn2", x).flatten(1)
    return norm("features", x @ state["fc.weight"].T + state["fc.bias"])


def steps(embed: Callable[[Tensor], Tensor], parameters: list[Tensor]) -> list[float]:
    """Losses of SGD steps with momentum and weight decay, on a plain linear classifier."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(CLASSES, 512, generator=generator).to(parameters[0].dtype)
    optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=0.9, weight_decay=5e-4)
    losses = []
    for _ in range(STEPS):
        images = torch.rand(BATCH, 3, 112, 112, generator=generator).to(parameters[0].dtype)
        labels = torch.randint(CLASSES, (BATCH,), generator=generator)
        cosines = F.normalize(embed(images)) @ F.normalize(centers).T
        loss = F.cross_entropy(16 * cosines, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "name", "forward"),
    [("adaface", "ir_18", adaface), ("magface", "iresnet18", magface)],
)
def test_sgd_steps(golden: Path, tmp_path: Path, family: str, name: str, forward: Forward) -> None:
    state = filled(shapes_of(golden, family, name))
    kind = facts(golden, family)["checkpoints"][0]
    network, _ = load_pretrained(file_of(state, kind, tmp_path / f"net{kind['suffix']}"))
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    network.double().train()
    reference = {key: value.double() for key, value in state.items()}
    trained = [k for k in reference if "running" not in k and "num_batches" not in k]
    for key in trained:
        reference[key].requires_grad = True
    found = steps(network, [p for p in network.parameters() if p.requires_grad])
    wanted = steps(lambda x: forward(reference, x), [reference[key] for key in trained])
    assert found == pytest.approx(wanted, rel=1e-6)
    assert wanted[0] != pytest.approx(wanted[-1], rel=1e-2), "nothing was learned"
    after = network.state_dict()
    for key, value in reference.items():
        if "num_batches" not in key:
            difference = (after[key] - value).norm() / value.norm()
            assert difference < 1e-6, key
            assert key.endswith("mask") or not torch.equal(value, state[key].double()), key
