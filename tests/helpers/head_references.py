"""Every head's loss as loops over Python floats, written from the papers' formulas.

Nothing here uses the package or tensors. `reference_loss(name, ...)` is the loss of one step of a
untrained head with default parameters, its state advanced by this batch.
"""

import math
import statistics
from collections.abc import Callable
from typing import Any

Vector = list[float]
PI = math.pi


# -- f: what replaces the target cosine ----------------------------------------------------------


def x2softmax(c: float, a: float = -0.9, h: float = 0.0, k: float = 0.65) -> float:
    return a * (math.acos(c) - h) ** 2 + k


def arcface(c: float, margin: float = 0.5, policy: str = "none") -> float:
    if policy == "easy" and c <= 0:
        return c
    if policy == "monotone" and math.acos(c) + margin >= PI:
        return c - margin * math.sin(margin)
    return math.cos(math.acos(c) + margin)


def cosface(c: float, margin: float = 0.4) -> float:
    return c - margin


def combined(c: float, m1: float = 1.0, m2: float = 0.3, m3: float = 0.2) -> float:
    return math.cos(m1 * math.acos(c) + m2) - m3


def unchanged(c: float) -> float:
    return c


def psi(c: float, m: float) -> float:
    angle = m * math.acos(c)
    k = math.floor(angle / PI)
    return (-1) ** k * math.cos(angle) - 2 * k


def sphereface(c: float, annealing: float = 0.0) -> float:
    return (psi(c, 4) + annealing * c) / (1 + annealing)


def sphereface_r(c: float) -> float:
    return psi(c, 1.7)


def sphereface2_g(c: float) -> float:
    return 2 * ((c + 1) / 2) ** 3 - 1


def adaface(c: float, z: float = 0.0) -> float:
    angle = min(max(math.acos(c) - 0.4 * z, 1e-3), PI - 1e-3)
    return math.cos(angle) - (0.4 + 0.4 * z)


def magface(c: float, norm: float = 10.0) -> float:
    a = min(max(norm, 10.0), 110.0)
    return arcface(c, 0.45 + (0.8 - 0.45) * (a - 10) / (110 - 10), "easy")


def dynarcface(c: float, nearest: float = PI / 2) -> float:
    beyond = nearest - 0.9
    margin = max(beyond, 0) * 0.3 + 0.45 + 0.03 * 0.45 / (1 + abs(20 * beyond) ** 1.1)
    return math.cos(math.acos(c) + margin)


TARGETS: dict[str, Callable[..., float]] = {
    "x2softmax": x2softmax,
    "arcface": arcface,
    "subcenter_arcface": arcface,
    "cosface": cosface,
    "uniface": cosface,
    "q_margin": lambda c: c - 0.2,
    "combined": combined,
    "normface": unchanged,
    "softmax": unchanged,
    "adacos": unchanged,
    "sphereface": sphereface,
    "sphereface_r": sphereface_r,
    "sphereface2": lambda c: sphereface2_g(c) - 0.4,
    "mv_softmax": lambda c: c - 0.35 if c > 0 else c,
    "curricularface": lambda c: arcface(c, 0.5, "monotone"),
    "magface": magface,
    "adaface": adaface,
    "elasticface_arc": arcface,
    "elasticface_cos": lambda c: c - 0.35,
    "dynarcface": dynarcface,
    "li_arcface": lambda c: (PI - 2 * (math.acos(c) + 0.45)) / PI,
    "qamface": lambda c: (2 * PI - (math.acos(c) + 0.5)) ** 2,
    "circle": lambda c: max(1 + 0.25 - c, 0) * (c - (1 - 0.25)),
    "expface": lambda c: math.cos(PI * (math.acos(c) / PI) ** 0.7),
}

SCALES = {
    "softmax": 1.0,
    "sphereface": 1.0,
    "sphereface_r": 30.0,
    "sphereface2": 40.0,
    "mv_softmax": 32.0,
    "qamface": 6.0,
    "circle": 256.0,
    "q_margin": 32.0,
}


# -- g: what replaces the other cosines, given the target's --------------------------------------


def mv_negative(c: float, target: float) -> float:
    return (0.2 + 1) * c + 0.2 if c > target - 0.35 else c


def curricular_negative(c: float, target: float, t: float) -> float:
    return c * (t + c) if c > math.cos(math.acos(target) + 0.5) else c


NEGATIVES: dict[str, Callable[..., float]] = {
    "mv_softmax": mv_negative,
    "curricularface": curricular_negative,
    "li_arcface": lambda c, _: (PI - 2 * math.acos(c)) / PI,
    "qamface": lambda c, _: (2 * PI - math.acos(c)) ** 2,
    "circle": lambda c, _: max(c + 0.25, 0) * (c - 0.25),
    "sphereface2": lambda c, _: sphereface2_g(c) + 0.4,
}


# -- losses over logits --------------------------------------------------------------------------


def log_sum_exp(values: Vector) -> float:
    highest = max(values)
    return highest + math.log(math.fsum(math.exp(v - highest) for v in values))


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def cross_entropy(logits: Vector, label: int) -> float:
    return log_sum_exp(logits) - logits[label]


def uce(logits: Vector, label: int, b: float) -> float:
    negatives = [softplus(z - b) for j, z in enumerate(logits) if j != label]
    return softplus(b - logits[label]) + math.fsum(negatives)


def sphereface2_loss(logits: Vector, label: int) -> float:
    """Binary losses, with the bias at which their derivative in the bias is zero, by bisection."""
    classes, alpha, r, m = len(logits), 0.7, 40.0, 0.4
    at_right_angle = sphereface2_g(0.0)

    def pull(b: float) -> float:
        positive = alpha / (1 + math.exp(r * (at_right_angle - m) + b))
        negative = (1 - alpha) / (1 + math.exp(-r * (at_right_angle + m) - b))
        return positive - (classes - 1) * negative

    b = bisect(pull, -200.0, 200.0)
    negatives = [softplus(z + b) for j, z in enumerate(logits) if j != label]
    positive = softplus(-logits[label] - b)
    return 50 / r * (alpha * positive + (1 - alpha) * math.fsum(negatives))


def bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def alpha_divergence(logits: Vector, label: int, prior: float, alpha: float = 1.25) -> float:
    """Fenchel-Young loss; logits are margin-free, prior is the target's q, others have 1."""
    q = [prior if j == label else 1.0 for j in range(len(logits))]

    def probabilities(tau: float) -> Vector:
        power = 1 / (alpha - 1)
        bases = [max(1 + (alpha - 1) * (z - tau), 0.0) for z in logits]
        return [qj * base**power for qj, base in zip(q, bases, strict=True)]

    tau = bisect(lambda t: math.fsum(probabilities(t)) - 1, min(logits) - 400, max(logits) + 10)
    p = probabilities(tau)

    def f(u: float) -> float:
        return (u**alpha - 1 - alpha * (u - 1)) / (alpha * (alpha - 1))

    onehot = [float(j == label) for j in range(len(logits))]
    own = math.fsum(pj * z for pj, z in zip(p, logits, strict=True)) - logits[label]
    divergence_p = math.fsum(qj * f(pj / qj) for qj, pj in zip(q, p, strict=True))
    divergence_y = math.fsum(qj * f(yj / qj) for qj, yj in zip(q, onehot, strict=True))
    return own - divergence_p + divergence_y


# -- one step ------------------------------------------------------------------------------------


def dot(a: Vector, b: Vector) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def length(v: Vector) -> float:
    return math.sqrt(dot(v, v))


def cosine_of(a: Vector, b: Vector) -> float:
    return dot(a, b) / (length(a) * length(b))


def cosines_to(embedding: Vector, weight: list[Vector], name: str) -> Vector:
    if name == "softmax":
        return [dot(embedding, w) for w in weight]
    values = [cosine_of(embedding, w) for w in weight]
    if name == "subcenter_arcface":  # three centers of a class lie one after the other
        return [max(values[i : i + 3]) for i in range(0, len(values), 3)]
    return values


def reference_loss(
    name: str,
    embeddings: list[Vector],
    weight: list[Vector],
    labels: list[int],
    target_logit: Callable[..., float] | None = None,
    scale: float = 64.0,
) -> float:
    """Mean loss over the rows whose label is not -1.

    Args:
        target_logit: f for a head that has no formula here, `scale` its scale.
    """
    rows = [(e, y) for e, y in zip(embeddings, labels, strict=True) if y != -1]
    cosines = [cosines_to(e, weight, name) for e, _ in rows]
    own = [c[y] for c, (_, y) in zip(cosines, rows, strict=True)]
    norms = [length(e) for e, _ in rows]
    f = TARGETS.get(name, target_logit)
    assert f is not None, f"no reference for {name}"
    if name in TARGETS:
        scale = adacos_scale(cosines, own, rows) if name == "adacos" else SCALES.get(name, 64.0)
    t = 0.01 * statistics.fmean(own)  # CurricularFace, from 0
    losses = []
    for i, (_, y) in enumerate(rows):
        c = cosines[i]
        factor = scale * norms[i] if name == "sphereface" else scale
        logits = [factor * negative(name, cj, own[i], t) for cj in c]
        logits[y] = factor * f(own[i], **facts(name, norms, i, weight, y))
        if name == "uniface":
            losses.append(uce(logits, y, math.log(10 * len(logits))))
        elif name == "sphereface2":
            losses.append(sphereface2_loss(logits, y))
        elif name == "q_margin":
            logits[y] = factor * own[i]
            losses.append(alpha_divergence(logits, y, math.exp(-factor * 0.2)))
        else:
            losses.append(cross_entropy(logits, y))
    return statistics.fmean(losses) + auxiliary(name, norms)


def negative(name: str, c: float, target: float, t: float) -> float:
    if name == "curricularface":
        return curricular_negative(c, target, t)
    return NEGATIVES[name](c, target) if name in NEGATIVES else c


def facts(name: str, norms: Vector, i: int, weight: list[Vector], label: int) -> dict[str, Any]:
    if name == "adaface":
        mean = 0.99 * 20 + 0.01 * statistics.fmean(norms)
        deviation = 0.99 * 100 + 0.01 * statistics.stdev(norms)
        return {"z": min(max(0.333 * (norms[i] - mean) / (deviation + 1e-3), -1), 1)}
    if name == "magface":
        return {"norm": norms[i]}
    if name == "sphereface":
        return {"annealing": max(5, 1000 / (1 + 0.12 * 1))}
    if name == "dynarcface":
        others = [cosine_of(weight[label], w) for j, w in enumerate(weight) if j != label]
        return {"nearest": math.acos(max(others))}
    return {}


def auxiliary(name: str, norms: Vector) -> float:
    if name != "magface":
        return 0.0
    clamped = [min(max(a, 10.0), 110.0) for a in norms]
    return 35 * statistics.fmean(1 / a + a / 110**2 for a in clamped)


def adacos_scale(cosines: list[Vector], own: Vector, rows: list[tuple[Vector, int]]) -> float:
    scale = math.sqrt(2) * math.log(len(cosines[0]) - 1)
    sums = [
        math.fsum(math.exp(scale * cj) for j, cj in enumerate(c) if j != y)
        for c, (_, y) in zip(cosines, rows, strict=True)
    ]
    angle = statistics.median_low(math.acos(c) for c in own)
    return math.log(statistics.fmean(sums)) / math.cos(min(PI / 4, angle))
