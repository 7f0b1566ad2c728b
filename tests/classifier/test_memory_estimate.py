"""The memory that is printed before training is that of the tensors training makes."""

import torch

from marginface.classifier import ClassifierOptions
from marginface.classifier.memory_estimate import classifier_lines, classifier_memory
from marginface.heads import create_head
from marginface.training.optimizers import SGD, AdamW

CPU = torch.device("cpu")
MIB = 2**20


def test_bytes_are_those_of_a_step() -> None:
    for make, name in ((SGD, "SGD"), (AdamW, "AdamW")):
        for rate in (1.0, 0.25):
            options = ClassifierOptions(sample_rate=rate)
            sizes = {"embedding_size": 16, "num_classes": 400}
            head = create_head("subcenter_arcface", **sizes, classifier=options)
            momentum = {"momentum": 0.9} if name == "SGD" else {}
            optimizer = make([head.weight], lr=0.1, **momentum)  # type: ignore[operator]
            head(torch.randn(8, 16), torch.arange(8)).backward()
            optimizer.step()
            found = classifier_memory(1200, 16, 8, options, optimizer=name, device=CPU)
            assert found.centers == head.weight.numel() * 4
            state = [v for v in optimizer.state[head.weight].values() if v.ndim == 2]
            assert found.optimizer == sum(v.numel() * 4 for v in state)
            gradient = head.weight.grad
            assert gradient is not None
            values = gradient._values() if gradient.is_sparse else gradient
            assert found.gradient == values.numel() * 4
            assert found.logits == 4 * 8 * 1200


def test_parts_and_accumulation() -> None:
    one = classifier_memory(1000, 16, 8, ClassifierOptions(), device=CPU)
    three = classifier_memory(1000, 16, 8, ClassifierOptions(), world=3, device=CPU)
    assert three.centers == 334 * 16 * 4
    twice = classifier_memory(1000, 16, 8, ClassifierOptions(), accumulates=True, device=CPU)
    assert twice.gradient == 2 * one.gradient
    dense = ClassifierOptions(sample_rate=0.1, sampling="dense", chunk_mib=3)
    found = classifier_memory(1000, 16, 8, dense, device=CPU)
    assert (found.gradient, found.chunks) == (4 * 16 * 1100, 3 * MIB)


def lines(classes: int, world: int = 1, **options: float) -> str:
    settings = ClassifierOptions(**options)  # type: ignore[arg-type]
    memory = classifier_memory(classes, 512, 128, settings, world=world, device=CPU)
    return "\n".join(classifier_lines(memory, classes, settings, world, CPU))


def test_advice() -> None:
    assert "centers 182 MiB, optimizer 182 MiB, gradient 182 MiB" in lines(93_431)
    assert "gradient 0 MiB" in lines(93_431, optimizer_in_backward=True)
    assert "partial_fc" not in lines(93_431)
    assert "sampling saves little below about 2,000,000 classes" in lines(93_431, sample_rate=0.1)
    assert "9343 of 93431 classes a step" in lines(93_431, sample_rate=0.1)
    assert "classifier=partial_fc" in lines(5_000_000)
    assert "saves little" not in lines(5_000_000, sample_rate=0.1)
    assert "on each of 8 processes: centers 1,221 MiB" in lines(5_000_000, world=8)
