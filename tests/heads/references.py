"""Target logits of every head as scalar functions of the cosine, written from the papers."""

import math
from collections.abc import Callable


def x2softmax(c: float, a: float = -0.9, h: float = 0.0, k: float = 0.65) -> float:
    return a * (math.acos(c) - h) ** 2 + k


def arcface(c: float, margin: float = 0.5) -> float:
    return math.cos(math.acos(c) + margin)


def cosface(c: float, margin: float = 0.4) -> float:
    return c - margin


def combined(c: float, m1: float = 1.0, m2: float = 0.3, m3: float = 0.2) -> float:
    return math.cos(m1 * math.acos(c) + m2) - m3


def unchanged(c: float) -> float:
    return c


REFERENCES: dict[str, Callable[..., float]] = {
    "x2softmax": x2softmax,
    "arcface": arcface,
    "cosface": cosface,
    "combined": combined,
    "normface": unchanged,
    "softmax": unchanged,
}


def loop_loss(
    embeddings: list[list[float]],
    weight: list[list[float]],
    labels: list[int],
    scale: float,
    target_logit: Callable[[float], float],
    normalised: bool = True,
) -> float:
    """Mean cross-entropy over the rows with a label, one number at a time."""

    def unit(v: list[float]) -> list[float]:
        norm = math.sqrt(sum(x * x for x in v)) if normalised else 1.0
        return [x / norm for x in v]

    centres = [unit(w) for w in weight]
    losses = []
    for embedding, label in zip(embeddings, labels, strict=True):
        if label == -1:
            continue
        e = unit(embedding)
        cosines = [sum(x * y for x, y in zip(e, w, strict=True)) for w in centres]
        cosines[label] = target_logit(cosines[label])
        logits = [scale * c for c in cosines]
        highest = max(logits)
        total = math.fsum(math.exp(x - highest) for x in logits)
        losses.append(highest + math.log(total) - logits[label])
    return math.fsum(losses) / len(losses)
