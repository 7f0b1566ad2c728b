"""What the parameters of a head mean for C classes and D dimensions, before any training."""

import math
from dataclasses import dataclass

import torch

from marginface.classifier.losses import (
    AlphaDivergence,
    BinaryCrossEntropy,
    ClassificationLoss,
    CrossEntropy,
)
from marginface.heads._margin import Margin
from marginface.heads.analysis.first_loss import expected_first_loss, loss_at
from marginface.heads.magface import MagFace
from marginface.heads.x2softmax import X2Softmax

CONFIDENT = 0.9  # the probability that the lower bound of the scale is for


@dataclass(frozen=True)
class Advice:
    """Numbers and warnings about a head; None where a number has no meaning for its kind."""

    expected_first_loss: float
    solved_angle: float | None  # degrees at which p = 0.5 against random negatives
    least_scale: float | None  # for p = 0.9 at angle 0 against C - 1 centers at right angles
    warnings: list[str]

    def lines(self, untrained: bool = True) -> list[str]:
        """Sentences for a terminal; without the first loss for a head that is trained already."""
        facts = [f"expected first loss {self.expected_first_loss:.1f}"] if untrained else []
        if self.solved_angle is not None:
            facts.append(f"p = 0.5 at {self.solved_angle:.1f} degrees")
        if self.least_scale is not None:
            facts.append(f"scale of at least {self.least_scale:.1f} for p = {CONFIDENT}")
        about = ["; ".join(facts)] if facts else []
        return [*about, *(f"warning: {text}" for text in self.warnings)]


def advise(
    margin: Margin,
    loss: ClassificationLoss,
    *,
    num_classes: int,
    embedding_size: int,
    sample_rate: float = 1.0,
    precision: str | None = None,
) -> Advice:
    """Look at an untrained head; its class centers are not needed.

    Args:
        sample_rate: share of the classes that a step compares with.
        precision: the trainer's, for example "16-true".
    """
    sizes = {"num_classes": num_classes, "embedding_size": embedding_size}
    first_loss = expected_first_loss(margin, loss, **sizes, sample_rate=sample_rate)
    angle = least = None
    warnings = []
    if not isinstance(loss, AlphaDivergence) and margin.name not in ("softmax", "sphereface"):
        angle = solved_angle(margin, loss, **sizes, sample_rate=sample_rate)
        if angle is None:
            warnings.append(
                "the margin is unreachable: even at angle 0 the target has p < 0.5 against random "
                "negatives; raise scale or lower the margin"
            )
    if type(loss) is CrossEntropy and margin.has_fixed_scale:
        least = least_scale(margin, **sizes)
        warnings += _scale_warnings(margin, least, **sizes)
    warnings += _warnings_of_kinds(margin, loss)
    if precision in ("16-true", "bf16-true"):
        warnings.append(
            f"trainer.precision={precision} stores class centers and state in 16 bits: angles are "
            "off by up to 0.03 (fp16) or 0.09 (bf16) rad; use 16-mixed or bf16-mixed"
        )
    return Advice(first_loss, angle, least, warnings)


def solved_angle(
    margin: Margin,
    loss: ClassificationLoss,
    *,
    num_classes: int,
    embedding_size: int,
    sample_rate: float = 1.0,
) -> float | None:
    """The largest angle in degrees at which p = 0.5 against random negatives; None: nowhere.

    For binary losses: where the target's logit passes the threshold.
    """
    degrees = torch.linspace(0, 180, 721, dtype=torch.float64, device=margin.device)
    cosine = degrees.deg2rad().cos()
    sizes = {"num_classes": num_classes, "embedding_size": embedding_size}
    if isinstance(loss, BinaryCrossEntropy):
        inputs = margin.typical_curve_inputs(embedding_size, num_classes)
        target = margin.target_logit(cosine, **inputs).detach()
        solved = float(margin.scale) * target >= loss.first_threshold
    else:
        losses = [loss_at(c, margin, loss, **sizes, sample_rate=sample_rate) for c in cosine]
        solved = torch.stack(losses) <= math.log(2)
    return float(degrees[solved].max()) if solved.any() else None


def least_scale(margin: Margin, *, num_classes: int, embedding_size: int) -> float | None:
    """s for which p reaches 0.9 at angle 0 when all other centers are at right angles.

    s f(0) - s g(90 degrees) = ln(C - 1) + ln(0.9 / 0.1). None when f does not reach the negatives.
    """
    one = torch.ones((), dtype=torch.float64, device=margin.device)
    zero = torch.zeros_like(one)
    inputs = margin.typical_curve_inputs(embedding_size, num_classes)
    best = float(margin.target_logit(one, **inputs))
    other = float(margin.negative_curve(zero, one)) if margin.changes_negatives else 0.0
    if best <= other:
        return None
    return (math.log(num_classes - 1) + math.log(CONFIDENT / (1 - CONFIDENT))) / (best - other)


def _scale_warnings(
    margin: Margin, least: float | None, *, num_classes: int, embedding_size: int
) -> list[str]:
    scale = margin.scale
    warnings = []
    if least is not None and scale < least:
        warnings.append(
            f"scale {scale:.3g} is small for {num_classes} classes: a perfect image stays below "
            f"p = {CONFIDENT}; use at least {least:.1f}"
        )
    # Beyond sqrt(2 ln C) standard deviations a sum of exponentials is its largest term.
    largest = math.sqrt(2 * embedding_size * math.log(num_classes))
    if not margin.changes_negatives and scale > largest:
        warnings.append(
            f"scale {scale:.3g} is large for {num_classes} classes in {embedding_size} "
            f"dimensions: beyond {largest:.0f} a single random negative dominates the softmax"
        )
    return warnings


def _warnings_of_kinds(margin: Margin, loss: ClassificationLoss) -> list[str]:
    warnings = []
    if isinstance(margin, X2Softmax) and margin.h > 0:
        warnings.append("h > 0 makes the logit fall again for angles below h")
    if isinstance(margin, MagFace):
        low, high = margin.l_a**2, margin.u_a**2
        rise = margin.scale * (margin.u_margin - margin.l_margin) / (margin.u_a - margin.l_a)
        least = rise * high * low / (high - low)
        if margin.lambda_g < least:
            warnings.append(
                f"lambda_g {margin.lambda_g:.3g} is too small to hold the norms: use more than "
                f"{least:.2f}"
            )
    if isinstance(loss, AlphaDivergence) and loss.prior == "linear":
        warnings.append("this curve under alpha_divergence is experimental: derived here, no paper")
    return warnings
