"""What the parameters of a head mean for C classes and D dimensions, before any training."""

import math
from dataclasses import dataclass

import torch

from marginface.classifier.losses import AlphaDivergence, BinaryCrossEntropy, CrossEntropy
from marginface.heads._head import MarginHead
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

    def lines(self, fresh: bool = True) -> list[str]:
        """Sentences for a terminal; without the first loss for a head that is trained already."""
        facts = [f"expected first loss {self.expected_first_loss:.1f}"] if fresh else []
        if self.solved_angle is not None:
            facts.append(f"p = 0.5 at {self.solved_angle:.1f} degrees")
        if self.least_scale is not None:
            facts.append(f"scale of at least {self.least_scale:.1f} for p = {CONFIDENT}")
        about = ["; ".join(facts)] if facts else []
        return [*about, *(f"warning: {text}" for text in self.warnings)]


def advise(head: MarginHead, precision: str | None = None) -> Advice:
    """Look at a fresh head.

    Args:
        precision: the trainer's, for example "16-true".
    """
    angle = least = None
    warnings = []
    if not isinstance(head.loss, AlphaDivergence) and head.name not in ("softmax", "sphereface"):
        angle = solved_angle(head)
        if angle is None:
            warnings.append(
                "the margin is unreachable: even at angle 0 the target has p < 0.5 against random "
                "negatives; raise scale or lower the margin"
            )
    if type(head.loss) is CrossEntropy and head.has_fixed_scale:
        least = least_scale(head)
        warnings += _scale_warnings(head, least)
    warnings += _warnings_of_kinds(head)
    if precision in ("16-true", "bf16-true"):
        warnings.append(
            f"trainer.precision={precision} stores class centers and state in 16 bits: angles are "
            "off by up to 0.03 (fp16) or 0.09 (bf16) rad; use 16-mixed or bf16-mixed"
        )
    return Advice(head.expected_first_loss(), angle, least, warnings)


def solved_angle(head: MarginHead) -> float | None:
    """The largest angle in degrees at which p = 0.5 against random negatives; None: nowhere.

    For binary losses: where the target's logit passes the threshold.
    """
    device = head.weight.device
    degrees = torch.linspace(0, 180, 721, dtype=torch.float64, device=device)
    cosine = degrees.deg2rad().cos()
    if isinstance(head.loss, BinaryCrossEntropy):
        target = head.target_logit(cosine, **head.typical_curve_inputs()).detach()
        solved = float(head.scale) * target >= head.loss.first_threshold
    else:
        losses = torch.stack([head.loss_at(c) for c in cosine])
        solved = losses <= math.log(2)
    return float(degrees[solved].max()) if solved.any() else None


def least_scale(head: MarginHead) -> float | None:
    """s for which p reaches 0.9 at angle 0 when all other centers are at right angles.

    s f(0) - s g(90 degrees) = ln(C - 1) + ln(0.9 / 0.1). None when f does not reach the negatives.
    """
    one = torch.ones((), dtype=torch.float64, device=head.weight.device)
    zero = torch.zeros_like(one)
    best = float(head.target_logit(one, **head.typical_curve_inputs()))
    other = float(head.negative_curve(zero, one)) if head.changes_negatives else 0.0
    if best <= other:
        return None
    return (math.log(head.num_classes - 1) + math.log(CONFIDENT / (1 - CONFIDENT))) / (best - other)


def _scale_warnings(head: MarginHead, least: float | None) -> list[str]:
    scale, classes = head.scale, head.num_classes
    warnings = []
    if least is not None and scale < least:
        warnings.append(
            f"scale {scale:.3g} is small for {classes} classes: a perfect image stays below "
            f"p = {CONFIDENT}; use at least {least:.1f}"
        )
    # Beyond sqrt(2 ln C) standard deviations a sum of exponentials is its largest term.
    largest = math.sqrt(2 * head.embedding_size * math.log(classes))
    if not head.changes_negatives and scale > largest:
        warnings.append(
            f"scale {scale:.3g} is large for {classes} classes in {head.embedding_size} "
            f"dimensions: beyond {largest:.0f} a single random negative dominates the softmax"
        )
    return warnings


def _warnings_of_kinds(head: MarginHead) -> list[str]:
    warnings = []
    if isinstance(head, X2Softmax) and head.h > 0:
        warnings.append("h > 0 makes the logit fall again for angles below h")
    if isinstance(head, MagFace):
        low, high = head.l_a**2, head.u_a**2
        rise = head.scale * (head.u_margin - head.l_margin) / (head.u_a - head.l_a)
        least = rise * high * low / (high - low)
        if head.lambda_g < least:
            warnings.append(
                f"lambda_g {head.lambda_g:.3g} is too small to hold the norms: use more than "
                f"{least:.2f}"
            )
    if isinstance(head.loss, AlphaDivergence) and head.loss.prior == "linear":
        warnings.append("this curve under alpha_divergence is experimental: derived here, no paper")
    return warnings
